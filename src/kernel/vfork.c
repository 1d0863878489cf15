/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "kernel/signal.h"
#include "kernel/vfork.h"
#include "remote/kernel_task.h"

/*
 * What the child (or another thread) answers in the place of the one that waits is
 * true of both as long as certain words of the kernel are equal in both. They are compared,
 * since the child may have changed its own.
 */

/* PF_MCE_PROCESS, PF_MCE_EARLY; PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE (PR_SET_IO_FLUSHER). */
#define ALIKE_PF  0x08180080u
/* TIF_NOCPUID and TIF_NOTSC, before 6.18 and since: what else has these numbers is alike, too. */
#define ALIKE_TIF 0x00318000ull
/* PFA_SPEC_*: PR_SET_SPECULATION_CTRL */
#define ALIKE_PFA 0x000000f8ull

#define KEEP_CAPS (1u << 4) /* SECURE_KEEP_CAPS */
#define RSEQ_SIZE 32	    /* the only one before 6.3 */

static int refuse(struct error *e, pid_t tid, const char *what)
{
	return error_set(e, -EBUSY, E_TASK_VFORK, "thread %d waits in vfork(), and %s", tid, what);
}

static struct frozen_process *process_of(struct freezer *f, pid_t pid)
{
	vec_for_each (p, &f->processes)
		if (p->pid == pid)
			return p;
	return NULL;
}

static struct frozen_thread *running_thread(struct frozen_process *p)
{
	vec_for_each (t, &p->threads)
		if (!t->zombie && !t->in_vfork)
			return t;
	return NULL;
}

static struct frozen_process *child_of(struct freezer *f, struct frozen_process *p, pid_t tid,
				       struct kernel_task *k, struct error *e)
{
	struct frozen_process *child;

	if (freezer_kernel_task(f, p->pid, tid, k, e) < 0) {
		error_object(e, -1, "thread %d waits in vfork()", tid);
		return NULL;
	}
	child = freezer_vfork_child(f, p, tid, k);
	if (!child)
		refuse(e, tid, "the task that it waits for is not its child");
	return child;
}

void vfork_find(struct checkpoint *c)
{
	_cleanup_(free_ptr) struct kernel_task *k = malloc(sizeof(*k));
	struct freezer *f = &c->freezer;

	vec_for_each (p, &f->processes)
		vec_for_each (t, &p->threads) {
			struct frozen_process *child =
				k && t->in_vfork ? child_of(f, p, t->tid, k, NULL) : NULL;

			if (child)
				t->vfork_child = child->pid;
		}
}

pid_t vfork_waiting_for(const struct checkpoint *c, const struct frozen_process *child)
{
	vec_for_each (p, &c->freezer.processes)
		vec_for_each (t, &p->threads)
			if (p->pid == child->ppid && t->in_vfork && t->vfork_child == child->pid)
				return t->tid;
	return 0;
}

/* The first thread on the way down that does not wait. */
struct frozen_thread *vfork_speaker(struct freezer *f, struct frozen_process *p)
{
	for (size_t i = 0; p && i < f->processes.n; i++) {
		struct frozen_thread *t = running_thread(p);

		if (t || !p->threads.n)
			return t;
		/* a leader may have exited */
		p = process_of(f, p->threads.v[p->threads.n - 1].vfork_child);
	}
	return NULL;
}

bool vfork_alone(const struct checkpoint_process *p)
{
	vec_for_each (t, &p->frozen->threads)
		if (t == p->speaker)
			return false;
	return p->speaker != NULL;
}

static int check_alike(const struct kernel_task *k, const struct kernel_task *other, pid_t tid,
		       struct error *e)
{
	if ((k->flags ^ other->flags) & ALIKE_PF ||
	    (k->thread_flags ^ other->thread_flags) & ALIKE_TIF ||
	    (k->atomic_flags ^ other->atomic_flags) & ALIKE_PFA)
		return refuse(e, tid, "its child has changed settings of prctl(2)");
	if (k->seccomp_filter != other->seccomp_filter)
		return refuse(e, tid, "its child has added seccomp filters");
	if (k->mempolicy)
		return refuse(e, tid, "it has a memory policy");
	if (k->dispatch_selector || k->dispatch_offset || k->dispatch_len)
		return refuse(e, tid, "its system calls are dispatched to itself");
	if (k->io_bitmap || k->iopl)
		return refuse(e, tid, "it has access to input and output ports");
	return 0;
}

/* What has been used of them is not told. */
static int check_cpu_timers(const struct kernel_task *k, pid_t tid, struct error *e)
{
	for (size_t i = 0; i < 2; i++)
		if (k->cpu_timers[i][0] || k->cpu_timers[i][1])
			return refuse(e, tid, "it has a timer of processor time");
	return 0;
}

/* The queues are shown to a tracer only; that of the process through any of its threads. */
static int check_pending(struct checkpoint *c, pid_t pid, pid_t tid, bool alone, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL, *timers = NULL;
	ssize_t len = procfs_read(c->proc_fd, &status, e, "%d/task/%d/status", pid, tid);
	uint64_t own, shared;

	if (len < 0)
		return (int)len;
	if (proc_field_u64(status, "SigPnd", 16, &own) < 0 ||
	    proc_field_u64(status, "ShdPnd", 16, &shared) < 0)
		return error_set(e, -EINVAL, E_INTERNAL, "/proc/%d/status is not understood", tid);
	if (own || (alone && shared))
		return refuse(e, tid, "signals are pending");
	if (!alone)
		return 0;
	len = procfs_read(c->proc_fd, &timers, e, "%d/timers", pid);
	if (len > 0)
		return refuse(e, tid, "it has POSIX timers");
	if (len < 0)
		error_clear(e); /* without CONFIG_CHECKPOINT_RESTORE there is no such file */
	return len < 0 && len != -ENOENT && len != -ESRCH ? (int)len : 0;
}

static int check_groups(struct checkpoint *c, const struct frozen_process *child, pid_t tid,
			const struct proc_stat *parent, const struct proc_stat *st, struct error *e)
{
	if ((st->session != parent->session && st->session != child->pid) ||
	    (st->pgrp != parent->pgrp && st->pgrp != child->pid))
		return refuse(e, tid, "its child has entered another session or process group");
	if (st->session == child->pid && st->tty_nr)
		return refuse(e, tid, "its child has a controlling terminal of its own");
	vec_for_each (q, &c->freezer.processes) {
		struct proc_stat other;

		if (q->pid == child->pid ||
		    proc_stat_read(c->proc_fd, q->pid, q->pid, &other, NULL) < 0)
			continue;
		if (other.session == child->pid || other.pgrp == child->pid)
			return refuse(e, tid,
				      "others are in a session or process group of its child");
	}
	return 0;
}

static bool is_stopped(struct checkpoint *c, const struct frozen_process *p)
{
	struct proc_stat st;

	if (c->freezer.attached)
		return p->job_stopped;
	vec_for_each (t, &p->threads)
		if (proc_stat_read(c->proc_fd, p->pid, t->tid, &st, NULL) == 0 && st.state == 'T')
			return true;
	return false;
}

static bool is_waited_for(const struct frozen_process *parent, const struct frozen_process *child)
{
	vec_for_each (t, &parent->threads)
		if (t->in_vfork && t->vfork_child == child->pid)
			return true;
	return false;
}

static int check_child(struct checkpoint *c, struct frozen_process *p, struct frozen_process *child,
		       pid_t tid, struct error *e)
{
	struct proc_stat parent, st;
	int r;

	if (syscall(SYS_kcmp, tid, child->pid, KCMP_VM, 0, 0) != 0)
		return refuse(e, tid, "its child has memory of its own");
	if (is_stopped(c, p) || is_stopped(c, child))
		return refuse(e, tid, "is stopped by job control, or its child");
	vec_for_each (q, &c->freezer.processes)
		if (q->ppid == child->pid && !is_waited_for(child, q))
			return refuse(e, tid, "its child has children");
	r = proc_stat_read(c->proc_fd, p->pid, p->pid, &parent, e);
	if (r >= 0)
		r = proc_stat_read(c->proc_fd, child->pid, child->pid, &st, e);
	return r < 0 ? r : check_groups(c, child, tid, &parent, &st, e);
}

static int check(struct checkpoint *c, struct checkpoint_process *p, pid_t tid, struct error *e)
{
	_cleanup_(free_ptr) struct kernel_task *k = malloc(2 * sizeof(*k));
	struct freezer *f = &c->freezer;
	struct frozen_process *child;
	struct frozen_thread *speaker;
	bool alone;
	int r;

	if (!k)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a task");
	child = child_of(f, p->frozen, tid, &k[0], e);
	if (!child)
		return -EBUSY;
	speaker = vfork_speaker(f, p->frozen);
	if (!speaker)
		return refuse(e, tid, "nobody can answer for it");
	r = kernel_task_settings(f->memory, speaker->tid, &k[1], e);
	if (r >= 0)
		r = check_alike(&k[0], &k[1], tid, e);
	alone = !running_thread(p->frozen);
	if (r >= 0 && alone)
		r = check_cpu_timers(&k[0], tid, e);
	if (r >= 0)
		r = check_pending(c, p->frozen->pid, tid, alone, e);
	return r < 0 ? r : check_child(c, p->frozen, child, tid, e);
}

/* Has the thread made a child since the tasks were listed? */
static bool has_new_child(struct checkpoint *c, pid_t pid, pid_t tid)
{
	_cleanup_(free_ptr) char *list = NULL;
	char *at;

	if (procfs_read(c->proc_fd, &list, NULL, "%d/task/%d/children", pid, tid) <= 0)
		return true;
	for (at = list; *at; at += strspn(at, " \n")) {
		pid_t child = (pid_t)strtol(at, &at, 10);

		if (child <= 0)
			break;
		if (!process_of(&c->freezer, child))
			return true;
	}
	return false;
}

int vfork_check(struct checkpoint *c, struct checkpoint_process *p, pid_t tid, struct error *e)
{
	struct proc_stat st;
	int r = check(c, p, tid, e);

	/* Where nothing is stopped the wait may have ended under our eyes, or be another one. */
	if (r < 0 && c->checking &&
	    (proc_stat_read(c->proc_fd, p->frozen->pid, tid, &st, NULL) < 0 ||
	     !freezer_in_vfork(&c->freezer, p->frozen->pid, tid, st.state) ||
	     has_new_child(c, p->frozen->pid, tid))) {
		error_clear(e);
		return 0;
	}
	return r;
}

static const struct kernel_task *kernel_of(const struct checkpoint_process *p)
{
	vec_for_each (t, &p->frozen->threads)
		if (t->kernel)
			return t->kernel;
	return NULL;
}

/* By which interface it was set, SA_IA32_ABI and SA_X32_ABI: for the kernel alone. */
#define SA_ABI 0x03000000ull

int vfork_sighand(const struct checkpoint_process *p, Reprise__Sighand *msg)
{
	const struct kernel_task *k = kernel_of(p);

	if (!k || msg->n_actions != KERNEL_TASK_SIGNALS)
		return -EINVAL;
	for (size_t i = 0; i < msg->n_actions; i++) {
		msg->actions[i]->handler = k->actions[i].handler;
		msg->actions[i]->flags = k->actions[i].flags & ~SA_ABI;
		msg->actions[i]->restorer = k->actions[i].restorer;
		msg->actions[i]->mask = k->actions[i].mask;
	}
	return 0;
}

static uint64_t up_to_us(uint64_t ns)
{
	return (ns + 999) / 1000;
}

/* As getitimer(2) would answer: what has been set has some time left. */
static uint64_t real_time_left(const struct kernel_memory *memory, const struct kernel_task *k)
{
	uint64_t now = kernel_clock_ns(memory, CLOCK_MONOTONIC);

	if (!k->real_state)
		return 0;
	return k->real_expires > now ? up_to_us(k->real_expires - now) : 1;
}

void vfork_process(const struct checkpoint *c, const struct checkpoint_process *p,
		   Reprise__Process *msg)
{
	const struct kernel_task *k = kernel_of(p);

	msg->child_subreaper = k->subreaper != 0;
	msg->n_timers = 0;
	msg->itimers[0]->value_us = real_time_left(c->freezer.memory, k);
	msg->itimers[0]->interval_us = k->real_interval / 1000;
	for (size_t i = 1; i < msg->n_itimers; i++)
		msg->itimers[i]->value_us = msg->itimers[i]->interval_us = 0;
}

void vfork_task(const struct frozen_thread *t, Reprise__Task *msg)
{
	const struct kernel_task *k = t->kernel;

	msg->altstack_sp = k->altstack_sp;
	msg->altstack_size = k->altstack_size;
	msg->altstack_flags = k->altstack_size ? k->altstack_flags : SS_DISABLE;
	msg->clear_child_tid = k->clear_child_tid;
	msg->pdeath_signal = (int32_t)k->pdeath_signal;
	msg->keep_caps = (k->securebits & KEEP_CAPS) != 0;
	msg->creds->securebits = k->securebits;
	msg->sched->timerslack_ns = k->timer_slack;
	msg->mempolicy.len = 0;
	msg->rseq = k->rseq;
	msg->rseq_size = !k->rseq ? 0 : k->rseq_size ? k->rseq_size : RSEQ_SIZE;
	msg->rseq_signature = k->rseq ? k->rseq_signature : 0;
	msg->rseq_flags = 0;
}
