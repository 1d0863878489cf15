/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "kernel/clone.h"
#include "kernel/levels.h"
#include "kernel/sharing.h"
#include "kernel/vfork.h"

/*
 * A child for which its parent waits in vfork(), at a restart. Only a call by the
 * waiting thread itself ties the two together, and nothing can be run in the thread after that: it
 * is complete before, and its registers are set while it stands in the call. The child finds an
 * agent in the memory that it shares.
 */

#define CONTROL_AT 512 /* out of the way of what is to come */
#define PID_TRIES  200

bool vfork_is_child(const struct restart_process *p)
{
	return p->msg->vfork_tid != 0;
}

bool vfork_is_parent(struct restart *r, const struct restart_process *p)
{
	vec_for_each (q, &r->processes)
		if (q->parent == p && vfork_is_child(q))
			return true;
	return false;
}

/* Without CAP_SYS_RESOURCE it takes equal ids, see check_prlimit_permission(). */
bool vfork_defers_limits(struct restart *r, const struct restart_process *p)
{
	const Reprise__Credentials *c;

	if (!vfork_is_parent(r, p) || p->tasks.v[0].msg->is_zombie || p->msg->user_namespace)
		return false;
	c = p->tasks.v[0].msg->creds;
	return c->ruid == getuid() && c->euid == getuid() && c->suid == getuid() &&
	       c->rgid == getgid() && c->egid == getgid() && c->sgid == getgid();
}

struct restart_task *vfork_waiting_thread(const struct restart_process *child)
{
	vec_for_each (t, &child->parent->tasks)
		if (t->vtid == child->msg->vfork_tid && !t->msg->is_zombie)
			return t;
	return NULL;
}

static int invalid(struct error *e, const struct restart_process *p)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID,
			 "no parent can wait in vfork() for process %d", p->vpid);
}

/* Filters are inherited, and only added to. */
static bool inherits_filters(const Reprise__Task *parent, const Reprise__Task *child)
{
	if (child->n_seccomp < parent->n_seccomp || child->seccomp_mode < parent->seccomp_mode)
		return false;
	for (size_t i = 0; i < parent->n_seccomp; i++) {
		const ProtobufCBinaryData *a = &parent->seccomp[i]->insns;
		const ProtobufCBinaryData *b = &child->seccomp[i]->insns;

		if (a->len != b->len || memcmp(a->data, b->data, a->len))
			return false;
	}
	return true;
}

/* Nothing else can be below such a child, see vfork_check(). */
int vfork_validate(const struct restart *r, const struct restart_process *p, struct error *e)
{
	const struct restart_task *t;

	if (p->parent && vfork_is_child(p->parent) && !vfork_is_child(p))
		return invalid(e, p->parent);
	if (!vfork_is_child(p))
		return 0;
	if (p->msg->zombie || !p->parent || p->mm_owner || p->mm_id != p->parent->mm_id ||
	    p->msg->job_stopped || p->parent->msg->job_stopped || !p->tasks.n ||
	    p->tasks.v[0].msg->is_zombie)
		return invalid(e, p);
	vec_for_each (other, &p->tasks)
		if (other->msg->files != p->tasks.v[0].msg->files ||
		    other->msg->fs != p->tasks.v[0].msg->fs)
			return invalid(e, p);
	t = vfork_waiting_thread(p);
	if (!t || !inherits_filters(t->msg, p->tasks.v[0].msg))
		return invalid(e, p);
	vec_for_each (q, &r->processes)
		if (q != p && q->parent == p->parent && q->msg->vfork_tid == p->msg->vfork_tid)
			return invalid(e, p);
	return 0;
}

/* ---- choosing the pid without the privilege of doing so ---- */

/* Neither the child nor its signal is left. (What was pending before has a place of its own.) */
static int take_back(struct restart *r, struct restart_task *t, pid_t pid, int exit_signal,
		     struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const uint64_t set = exit_signal ? 1ull << (exit_signal - 1) : 0;
	const struct timespec none = {};
	pid_t inner = tree_pid_at(r, pid, pid, 0);
	int res = agent_vfork_undo(t->tid, pid, e);

	if (res < 0)
		return res;
	batch_call(&b, SYS_wait4, VAL(inner), VAL(0), VAL(__WALL), VAL(0));
	if (exit_signal)
		batch_call(&b, SYS_rt_sigtimedwait, DATA(batch_data(&b, &set, sizeof(set))), VAL(0),
			   DATA(batch_data(&b, &none, sizeof(none))), VAL(8));
	return agent_run(t->process->agent, t->tid, NULL, &b, e);
}

/*
 * The thread has the credentials of the application by now, and may not choose a pid
 * for its child: we lead it to the right one, and try again where somebody else was faster.
 */
static int vfork_led(struct restart *r, struct restart_process *child, struct restart_task *t,
		     const struct clone_args *args, unsigned long options, pid_t *pid,
		     struct error *e)
{
	for (int i = 0; i < PID_TRIES; i++) {
		int res = levels_lead(r, 0, child->vpid);

		if (res < 0)
			return error_errno(e, res, E_PID_CHOOSE, "cannot lead task %d to pid %d",
					   t->vtid, child->vpid);
		res = agent_vfork(child->parent->agent, t->tid, args, 0, options, pid, e);
		if (res < 0 || tree_pid_at(r, *pid, *pid, 0) == child->vpid)
			return res;
		res = take_back(r, t, *pid, (int)args->exit_signal, e);
		if (res < 0)
			return res;
	}
	return -EEXIST;
}

int vfork_restart(struct restart *r, struct restart_process *child, struct error *e)
{
	struct restart_task *t = vfork_waiting_thread(child);
	const struct clone_args args = {
		.flags = CLONE_VFORK | CLONE_PTRACE | tree_sharing(child->parent, t->msg, child),
		.exit_signal =
			(uint64_t)(child->msg->exit_signal > 0 ? child->msg->exit_signal : 0),
	};
	unsigned long options = PTRACE_O_EXITKILL;
	pid_t pid = 0;
	int res;

	if (t->msg->seccomp_mode)
		options |= PTRACE_O_SUSPEND_SECCOMP;
	res = agent_vfork(child->parent->agent, t->tid, &args, child->vpid, options, &pid, e);
	if (res == -EPERM)
		res = vfork_led(r, child, t, &args, options, &pid, e);
	if (res == -EEXIST)
		return error_set(e, res, E_PID_TAKEN, "pid %d is taken", child->vpid);
	if (res < 0)
		return error_errno(e, res, E_RESTORE, "cannot make task %d", child->vpid);
	restart_trace(r, "task %d made by %d, which waits for it", child->vpid, t->tid);
	return stub_adopt(r, child, pid, agent_address(child->parent->agent), e);
}

static int make_pair(struct restart_process *child, int ends[2], struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t at = batch_data(&b, NULL, 2 * sizeof(*ends));
	int call = batch_call(&b, SYS_socketpair, VAL(AF_UNIX), VAL(SOCK_SEQPACKET | SOCK_CLOEXEC),
			      VAL(0), DATA(at));
	int r = agent_run(child->agent, child->tasks.v[0].tid, NULL, &b, e);

	if (r >= 0 && batch_result(&b, call) < 0)
		r = error_errno(e, (int)batch_result(&b, call), E_RESTORE,
				"task %d cannot make a socket", child->vpid);
	if (r >= 0)
		memcpy(ends, batch_at(&b, at), 2 * sizeof(*ends));
	return r;
}

static int close_in(struct restart_process *child, int fd, struct error *e)
{
	long r = agent_syscall(child->agent, child->tasks.v[0].tid, NULL, e, SYS_close,
			       (const uint64_t[6]){(uint64_t)fd});

	return r < 0 ? error_errno(e, (int)r, E_RESTORE, "cannot close a descriptor of task %d",
				   child->vpid)
		     : 0;
}

static int take_end(struct restart *r, struct restart_process *child, int end, struct error *e)
{
	_cleanup_(close_fd) int pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
	int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, end, 0);

	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot take a descriptor of task %d",
				   child->vpid);
	close_fd(&r->control);
	r->control = fd;
	return close_in(child, end, e);
}

int vfork_open_control(struct restart *r, struct restart_process *child, bool own_table,
		       struct error *e)
{
	pid_t tid = child->tasks.v[0].tid;
	int ends[2], res;
	long high;

	if (own_table && agent_syscall(child->agent, tid, NULL, e, SYS_close_range,
				       (const uint64_t[6]){0, ~0u, 0}) < 0)
		return error_set(e, -EIO, E_RESTORE, "cannot empty the descriptor table of task %d",
				 child->vpid);
	res = make_pair(child, ends, e);
	if (res >= 0)
		res = take_end(r, child, ends[0], e);
	if (res < 0)
		return res;
	r->control_remote = ends[1];
	if (!own_table)
		return 0;
	/* A table is filled from below. */
	high = agent_syscall(child->agent, tid, NULL, e, SYS_fcntl,
			     (const uint64_t[6]){(uint64_t)ends[1], F_DUPFD_CLOEXEC, CONTROL_AT});
	if (high < 0)
		return 0; /* its limit is low; files_restart_fill() finds a place */
	r->control_remote = (int)high;
	return close_in(child, ends[1], e);
}

int vfork_close_control(struct restart *r, struct restart_process *child, struct error *e)
{
	return close_in(child, r->control_remote, e);
}
