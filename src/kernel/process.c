/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "kernel/ldt.h"
#include "kernel/levels.h"
#include "kernel/membarrier.h"
#include "kernel/prctl.h"
#include "kernel/process.h"
#include "kernel/rlimit.h"
#include "kernel/security.h"
#include "kernel/signal.h"
#include "kernel/task.h"
#include "kernel/timer.h"
#include "kernel/timer_overrun.h"
#include "kernel/vfork.h"
#include "kernel/zombie.h"
#include "mm/keys.h"
#include "model/glance.h"

int process_index_new(struct checkpoint *c, struct process_index *x, struct error *e)
{
	int r;

	if (kcmp_index_new(&x->mm, KCMP_VM) < 0 || kcmp_index_new(&x->sighand, KCMP_SIGHAND) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the object table");
	r = namespaces_read(c, &x->namespaces, e);
	if (r < 0)
		return r;
	ignore(security_label_own(c, &x->label), "no module gives labels");
	return 0;
}

void process_index_free(struct process_index *x)
{
	kcmp_index_free(x->mm);
	kcmp_index_free(x->sighand);
	namespaces_free(&x->namespaces);
	free(x->label);
}

/* hash: those whose differ are not compared. */
static int identify(struct checkpoint *c, struct kcmp_index *index, uint64_t hash,
		    enum record_type kind, const struct checkpoint_process *p, uint64_t *ret_id,
		    bool *ret_new, struct error *e)
{
	bool unused;
	uint64_t class;
	int r = kcmp_index_get(index, hash, p->tid, 0, &class, &unused);

	if (r < 0)
		return error_errno(e, r, r == -EPERM ? E_PERMISSION : E_SYSTEM, "kcmp");
	r = objects_get(c->objects, kind, class, 0, ret_id, ret_new);
	return r < 0 ? error_set(e, r, E_NO_MEMORY, "no memory for the object table") : 0;
}

int process_identify_mm(struct checkpoint *c, struct process_index *x, struct checkpoint_process *p,
			struct error *e)
{
	bool unused;

	return identify(c, x->mm, glance_of(c, p->tid, GLANCE_MM), RECORD_MM, p, &p->mm, &unused,
			e);
}

void process_look_at_texts(const struct checkpoint *c, struct checkpoint_process *p)
{
	if (p->frozen->zombie || p->look)
		return;
	p->look = calloc(1, sizeof(*p->look));
	/* While it runs, what is read here would be old by the time it is asked for. */
	if (p->look && !c->checking)
		checkpoint_read_texts(c, p, p->look);
}

void process_look(const struct checkpoint *c, const struct process_index *x,
		  struct checkpoint_process *p)
{
	struct process_look *l;

	process_look_at_texts(c, p);
	l = p->look;
	if (!l || l->compared)
		return;
	l->namespaces =
		namespaces_compare(c, &x->namespaces, p, &l->children_apart, &l->in_namespaces);
	l->labels = security_compare_labels(c, x->label, p, &l->in_labels);
	l->compared = true;
}

int process_check(struct checkpoint *c, const struct process_index *x, struct checkpoint_process *p,
		  struct error *e)
{
	int r;

	if (p->frozen->zombie)
		return checkpoint_refuse(c, zombie_check(c, p, e), e);
	process_look(c, x, p);
	if (!p->look)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a process");
	*e = p->look->in_namespaces;
	r = p->look->namespaces;
	/* the first failure is enough: it would be the same for all */
	if (r < 0 && r != -EXDEV)
		return checkpoint_refuse(c, r, e);
	r = checkpoint_refuse(c, r, e);
	if (r >= 0) {
		*e = p->look->in_labels;
		r = checkpoint_refuse(c, p->look->labels, e);
	}
	if (r >= 0 && c->checking)
		r = checkpoint_refuse(c, timers_check(c, p, e), e);
	vec_for_each (t, &p->frozen->threads) {
		if (r < 0)
			break;
		if (!t->zombie)
			r = checkpoint_refuse(c, task_check(c, p, t->tid, e), e);
	}
	return r;
}

static int save_place(struct checkpoint *c, struct checkpoint_process *p, Reprise__Process *msg,
		      struct scratch *s, struct error *e)
{
	const struct frozen_process *f = p->frozen;
	const struct proc_stat *st = &p->stat;

	msg->pid = f->pid;
	msg->ppid = f->pid == c->freezer.root ? 0 : f->ppid;
	msg->ptid = f->ptid;
	msg->pgid = st->pgrp;
	msg->sid = st->session;
	msg->exit_signal = st->exit_signal;
	msg->zombie = f->zombie;
	msg->exit_status = f->job_stopped ? f->threads.v[0].unreported : f->exit_code;
	msg->start_time = f->start_time;
	msg->job_stopped = f->job_stopped;
	msg->stop_signal = f->stop_signal;
	msg->tty_nr = (uint64_t)(uint32_t)st->tty_nr;
	msg->controlling_tty = st->tty_nr != 0;
	msg->tty_pgrp = st->tpgid;
	msg->vfork_tid = vfork_waiting_for(c, f);
	msg->user_namespace = f->zombie ? 0 : space_of_user(c, f->pid);
	msg->comm = scratch_string(s, st->comm);
	return msg->comm ? levels_save_process(c, p, msg, s, e)
			 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a process");
}

/* Left as it is if the file is not there. */
static int read_number(struct checkpoint *c, const struct checkpoint_process *p,
		       enum look_text which, int base, uint64_t *ret, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t len = checkpoint_text(c, p, which, &text, e);

	if (len > 0)
		*ret = strtoull(text, NULL, base);
	return len < 0 ? procfs_unless_gone(len, e) : 0;
}

/* /proc/PID/oom_score_adj and coredump_filter can be absent, depending on the kernel's
 * configuration. */
static int save_proc_settings(struct checkpoint *c, const struct checkpoint_process *p,
			      Reprise__Process *msg, struct error *e)
{
	uint64_t oom = 0, filter = 0;
	int r = read_number(c, p, LOOK_OOM, 10, &oom, e);

	if (r >= 0)
		r = read_number(c, p, LOOK_DUMP, 16, &filter, e);
	msg->oom_score_adj = (int32_t)oom;
	msg->coredump_filter = (uint32_t)filter;
	return r;
}

struct process_query {
	struct sighand_query sighand;
	struct prctl_query prctl;
	struct processor_query processor;
	struct timers_query timers;
	struct ldt_query ldt;
	struct membarrier_query membarrier;
	struct keys_query keys;
	int brk, locked;
};

static int ask_process(struct checkpoint *c, struct checkpoint_process *p, struct batch *b,
		       struct process_query *q, struct scratch *s, struct error *e)
{
	sighand_query(b, &q->sighand);
	prctl_process_query(b, &q->prctl);
	processor_process_query(b, &q->processor);
	ldt_query(b, &q->ldt);
	membarrier_query(c, b, &q->membarrier);
	keys_query(c, b, &q->keys);
	q->brk = batch_call(b, SYS_brk, VAL(0));
	/* EBUSY for what is locked: msync(2) */
	q->locked =
		batch_call(b, SYS_msync, VAL(agent_address(p->agent)), VAL(1), VAL(MS_INVALIDATE));
	return timers_query(c, p, b, &q->timers, s, e);
}

static int save_sighand(struct checkpoint *c, struct process_index *x, struct checkpoint_process *p,
			struct batch *b, const struct process_query *q, Reprise__Process *msg,
			struct scratch *s, struct error *e)
{
	Reprise__Sighand table = REPRISE__SIGHAND__INIT;
	bool new;
	/* Only who has the same memory can have the same table: copy_process(), unshare_sighand().
	 */
	int r = identify(c, x->sighand, p->mm, RECORD_SIGHAND, p, &msg->sighand, &new, e);

	if (r < 0 || !new)
		return r;
	if (sighand_collect(b, &q->sighand, &table, s) < 0 ||
	    (vfork_alone(p) && vfork_sighand(p, &table) < 0))
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for signal actions");
	return checkpoint_put(c, RECORD_SIGHAND, msg->sighand, &table.base, e);
}

static int save_shared(struct checkpoint *c, struct process_index *x, struct checkpoint_process *p,
		       struct batch *b, struct process_query *q, Reprise__Process *msg,
		       struct scratch *s, struct error *e)
{
	int r = save_sighand(c, x, p, b, q, msg, s, e);

	if (r < 0)
		return r;
	prctl_process_collect(b, &q->prctl, msg);
	msg->protection_keys = keys_collect(b, &q->keys);
	msg->membarrier = membarrier_collect(c, p->speaker->tid, b, &q->membarrier);
	if (batch_result(b, q->brk) < 0)
		return error_errno(e, (int)batch_result(b, q->brk), E_REMOTE,
				   "cannot learn where the heap ends");
	p->brk = (uint64_t)batch_result(b, q->brk);
	p->agent_unlocked = batch_result(b, q->locked) == 0;
	r = processor_process_collect(b, &q->processor, msg, e);
	if (r >= 0)
		r = ldt_collect(b, &q->ldt, msg, s, e);
	if (r < 0)
		return r;
	r = timers_collect(b, &q->timers, msg, s, e);
	if (r >= 0)
		timers_pending_overruns(c, p, msg);
	if (r >= 0 && vfork_alone(p))
		vfork_process(c, p, msg);
	else if (r >= 0)
		r = pending_checkpoint(p->tid, true, &msg->n_pending, &msg->pending, s, e);
	if (r >= 0)
		r = rlimits_checkpoint(c, p, msg, s, e);
	if (r >= 0)
		r = save_proc_settings(c, p, msg, e);
	c->subreapers |= msg->child_subreaper;
	msg->mm = p->mm;
	return r;
}

/*
 * Each thread executes one batch; the first also answers for the process.
 * The record of the process stands before those of its threads.
 */
static int save_threads(struct checkpoint *c, struct process_index *x, struct checkpoint_process *p,
			Reprise__Process *msg, struct scratch *s, struct error *e)
{
	bool first = true;

	vec_for_each (t, &p->frozen->threads) {
		_cleanup_(batch_free) struct batch b = {};
		const struct frozen_thread *by = t->in_vfork ? p->speaker : t;
		struct process_query pq = {};
		struct task_query tq = {};
		int r = 0;

		if (t->zombie) {
			r = task_checkpoint_exited(c, p, t->tid, e);
			if (r < 0)
				return r;
			continue;
		}
		if (first)
			r = ask_process(c, p, &b, &pq, s, e);
		task_query(&b, &tq);
		if (r >= 0)
			r = security_query(c, p, t->tid, &b, &tq.security, e);
		if (r >= 0)
			r = agent_run(p->agent, by->tid, by->cpu, &b, e);
		if (r >= 0 && first) {
			r = save_shared(c, x, p, &b, &pq, msg, s, e);
			if (r >= 0)
				r = checkpoint_put(c, RECORD_PROCESS, objects_fresh(c->objects),
						   &msg->base, e);
			first = false;
		}
		if (r >= 0)
			r = task_checkpoint(c, p, t, &b, &tq, e);
		if (r < 0)
			return error_object(e, r, "thread %d", t->tid);
	}
	return 0;
}

int process_checkpoint(struct checkpoint *c, struct process_index *x, struct checkpoint_process *p,
		       struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Process msg = REPRISE__PROCESS__INIT;
	int r = save_place(c, p, &msg, &s, e);

	if (r < 0)
		return r;
	if (p->frozen->zombie)
		return checkpoint_put(c, RECORD_PROCESS, objects_fresh(c->objects), &msg.base, e);
	msg.leader_exited = p->frozen->threads.n && p->frozen->threads.v[0].zombie;
	return save_threads(c, x, p, &msg, &s, e);
}

static int validate_zombie(const Reprise__Process *m, struct error *e)
{
	if (!WIFEXITED(m->exit_status) && !WIFSIGNALED(m->exit_status))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "zombie %d with wait status 0x%x",
				 m->pid, m->exit_status);
	return zombie_validate(m, e);
}

int process_validate(const struct restart *r, const Reprise__Process *m, struct error *e)
{
	const Reprise__Sighand *table = restart_find(r, RECORD_SIGHAND, m->sighand);
	const Reprise__Mm *mm = restart_find(r, RECORD_MM, m->mm);
	int res;

	if (m->pid <= 0 || m->ppid < 0 || m->pgid < 0 || m->sid < 0 || m->exit_signal < -1 ||
	    m->exit_signal > NSIG_ALL)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "process %d is impossible", m->pid);
	if (m->zombie)
		return validate_zombie(m, e);
	if (!table || !mm)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "process %d refers to what is not there", m->pid);
	if (!keys_valid(m->protection_keys, mm))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "process %d has impossible protection keys", m->pid);
	for (size_t i = 0; i < m->n_pending; i++)
		if (m->pending[i]->raw.len != sizeof(siginfo_t))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a siginfo of %zu bytes",
					 m->pending[i]->raw.len);
	res = ldt_validate(m, e);
	if (res >= 0)
		res = sighand_validate(table, e);
	if (res >= 0)
		res = timers_validate(m, e);
	return res < 0 ? res : rlimits_validate(m, e);
}

int process_restart_shared(struct restart *r, struct restart_process *p, bool sighand,
			   struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	struct restart_task *leader = &p->tasks.v[0];
	int failed, res = 0;

	if (sighand && sighand_restart(&b, restart_find(r, RECORD_SIGHAND, p->msg->sighand),
				       p->mm->compat) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for signal actions");
	prctl_process_restart(&b, p->msg);
	processor_process_restart(&b, p->msg);
	ldt_restart(&b, p->msg);
	membarrier_restart(&b, p->msg->membarrier);
	res = agent_run(p->agent, leader->tid, NULL, &b, e);
	if (res < 0)
		return res;
	failed = batch_failed(&b);
	if (failed >= 0)
		return error_errno(e, (int)batch_result(&b, failed), E_RESTORE,
				   "cannot restore the state of a process (system call %ld)",
				   batch_number(&b, failed));
	return pending_restart(r, leader, true, p->msg->n_pending, p->msg->pending, e);
}

static int write_number(struct restart *r, pid_t pid, const char *name, const char *fmt, long v,
			struct error *e)
{
	char text[24];
	_cleanup_(close_fd) int fd =
		procfs_open(r->proc_fd, O_WRONLY | O_CLOEXEC, e, "%d/%s", pid, name);

	if (fd < 0)
		return fd;
	snprintf(text, sizeof(text), fmt, v);
	if (write(fd, text, strlen(text)) < 0)
		return error_errno(e, -errno, errno == EACCES ? E_CREDENTIALS : E_RESTORE,
				   "cannot set %s to %ld", name, v);
	return 0;
}

static int restore_proc_settings(struct restart *r, struct restart_process *p, struct error *e)
{
	_cleanup_(free_ptr) char *now = NULL;
	ssize_t len = procfs_read(r->proc_fd, &now, e, "%d/oom_score_adj", p->pid);
	int res = 0;

	if (len > 0 && atoi(now) != p->msg->oom_score_adj)
		res = write_number(r, p->pid, "oom_score_adj", "%ld", p->msg->oom_score_adj, e);
	else if (len < 0)
		res = procfs_unless_gone(len, e);
	if (res >= 0 && p->msg->coredump_filter)
		res = write_number(r, p->pid, "coredump_filter", "0x%lx",
				   (long)p->msg->coredump_filter, e);
	return res;
}

int process_restart_last(struct restart *r, struct restart_process *p, struct error *e)
{
	int res = restore_proc_settings(r, p, e);

	if (res >= 0)
		res = timers_restart(r, p, e);
	if (res < 0 || vfork_defers_limits(r, p))
		return res;
	return vfork_is_child(p) || p->msg->user_namespace ? rlimits_restart_inside(p, e)
							   : rlimits_restart(p, e);
}
