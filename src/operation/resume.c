/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/patience.h"
#include "core/procfs.h"
#include "core/scratch.h"
#include "fs/epoll.h"
#include "fs/file.h"
#include "fs/inode.h"
#include "fs/userfaultfd.h"
#include "kernel/clone.h"
#include "kernel/process.h"
#include "kernel/registers.h"
#include "kernel/rlimit.h"
#include "kernel/task.h"
#include "kernel/user_task.h"
#include "kernel/vfork.h"
#include "kernel/zombie.h"
#include "mm/mm.h"
#include "model/pids.h"
#include "operation/handover.h"
#include "operation/operation.h"
#include "operation/resume.h"
#include "operation/terminal.h"

void restart_warn(void *report, const struct error *problem)
{
	report_problem(report, problem);
}

/* What every stub inherited from us: only differences have to be set. */
static int read_own_state(struct restart *r, Reprise__Task *now, struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	int res = (int)procfs_read(r->proc_fd, &status, e, "%d/status", getpid());
	int bits = prctl(PR_GET_SECUREBITS);

	if (res >= 0)
		res = task_outside(getpid(), status, now, s, e);
	if (res < 0)
		return res;
	now->personality = (uint32_t)personality(0xffffffff);
	now->creds->securebits = bits > 0 ? (uint32_t)bits : 0;
	/* In a user namespace of our own they show as the overflow id (from_kgid_munged()). */
	now->creds->groups = r->groups;
	now->creds->n_groups = r->n_groups;
	return 0;
}

static bool first_of_sighand(struct restart *r, const struct restart_process *p)
{
	vec_for_each (q, &r->processes) {
		if (q == p)
			return true;
		if (!q->msg->zombie && q->msg->sighand == p->msg->sighand)
			return false;
	}
	return true;
}

static int restart_thread(struct restart *r, struct restart_task *t, const Reprise__Task *now,
			  struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Task there = *now;
	int res = 0;

	if (t->process->msg->user_namespace)
		res = user_task_now(r, t, &there, &s, e);
	return res < 0 ? res : task_restart(r, t, &there, e);
}

static int prepare_process(struct restart *r, struct restart_process *p, const Reprise__Task *now,
			   struct error *e)
{
	int res = 0;

	if (p->mm_owner)
		res = mm_restart_finish(r, p, e);
	if (res >= 0)
		res = process_restart_shared(r, p, first_of_sighand(r, p), e);
	if (res >= 0)
		res = process_restart_last(r, p, e);
	vec_for_each (t, &p->tasks) {
		if (res < 0)
			break;
		if (!t->msg->is_zombie)
			res = restart_thread(r, t, now, e);
		if (res < 0)
			error_object(e, res, "thread %d", t->vtid);
	}
	return res;
}

/*
 * Is another process of the same address space still to be prepared, or to be made by a thread
 * that waits in vfork()? Then the agent is needed.
 */
static bool last_of_mm(struct restart *r, const struct restart_process *p)
{
	vec_for_each (q, &r->processes)
		if (q->mm_id == p->mm_id && vfork_is_child(q))
			return false;
	for (const struct restart_process *q = r->processes.v; q < p; q++)
		if (q->mm_id == p->mm_id && !q->msg->zombie)
			return false;
	return true;
}

/* A leader that has exited while its threads go on does so again, before its agent leaves. */
static int end_leader(struct restart *r, struct restart_process *p, struct error *e)
{
	int status = p->msg->exit_status;
	int res = agent_exit(p->agent, p->pid, WIFEXITED(status) ? WEXITSTATUS(status) : 0, 0,
			     AGENT_END_THREAD, e);

	if (res >= 0)
		res = trace_cont(p->pid, 0, e);
	/* Its end is reported to nobody before the last thread's (delay_group_leader()). */
	for (int tries = 0; res >= 0 && tries < PATIENCE_MS; tries++) {
		struct proc_stat st;

		res = proc_stat_read(r->proc_fd, p->pid, p->pid, &st, e);
		if (res >= 0 && st.state == 'Z')
			return 0;
		patience_pause();
	}
	return res < 0 ? res : error_set(e, -ETIMEDOUT, E_RESTORE, "the leader does not end");
}

/*
 * All registers are set, then (unmap) the agent's mapping is removed through one thread,
 * whose registers are set again.
 */
static int set_registers(struct restart *r, struct restart_process *p, bool unmap, struct error *e)
{
	struct restart_task *last = &p->tasks.v[p->tasks.n - 1];
	int res = 0;

	if (p->tasks.v[0].msg->is_zombie)
		res = end_leader(r, p, e);
	vec_for_each (t, &p->tasks)
		if (res >= 0 && !t->msg->is_zombie) {
			res = registers_restart_sleep(t, e);
			if (res >= 0)
				res = registers_restart(t, e);
		}
	if (res >= 0 && unmap) {
		res = agent_unmap(p->agent, last->tid, e);
		if (res >= 0)
			res = registers_restart(last, e);
	}
	return res;
}

static int let_go(struct restart *r, struct restart_process *p, bool stopped, struct error *e)
{
	int res = handover_add(r, p, e);

	if (res < 0)
		return res;
	/* Taken before the first instruction: a task leaves its trace stop through get_signal(). */
	if ((stopped || p->msg->job_stopped) && kill(p->pid, SIGSTOP) < 0)
		return error_errno(e, -errno, E_RESTORE, "task %d cannot be stopped", p->vpid);
	vec_for_each (t, &p->tasks)
		if (res >= 0 && !t->msg->is_zombie)
			res = trace_detach(t->tid, 0, e);
	p->let_go = true;
	return res;
}

/*
 * A stopped process enters its stop while its parent is still ours: the parent
 * waits for it, takes the report if it had taken it before, and loses the
 * SIGCHLD of it when its signal actions are set. (The image has the signal if it was pending.)
 */
static int stop_process(struct restart *r, struct restart_process *p, struct error *e)
{
	/* what its parent calls it */
	pid_t pid = p->parent ? restart_pid_in(r, p->vpid, p->parent->msg->pid_namespace) : 0;
	const uint64_t wait[6] = {P_PID, (uint64_t)pid, 0,
				  WSTOPPED | (p->msg->exit_status ? WNOWAIT : 0)};
	long res = let_go(r, p, true, e);

	if (res >= 0 && p->parent)
		res = agent_syscall(p->parent->agent, p->parent->tasks.v[0].tid, NULL, e,
				    SYS_waitid, wait);
	return res < 0 ? error_errno(e, (int)res, E_RESTORE, "cannot stop task %d", p->vpid) : 0;
}

static int prepare(struct restart *r, struct restart_process *p, const Reprise__Task *now,
		   struct error *e)
{
	int res = prepare_process(r, p, now, e);

	if (res >= 0 && !vfork_is_parent(r, p))
		res = set_registers(r, p, last_of_mm(r, p), e);
	if (res >= 0 && p->msg->job_stopped && p->parent)
		res = stop_process(r, p, e);
	return res < 0 ? error_object(e, res, "task %d (%s)", p->vpid, p->tasks.v[0].msg->comm) : 0;
}

/* ---- parents that wait in vfork() ---- */

static uint64_t files_of(const Reprise__Task *m)
{
	return m->files;
}

static uint64_t fs_of(const Reprise__Task *m)
{
	return m->fs;
}

/* Tables that others have as well have been filled by them. */
static bool has_table_alone(struct restart *r, const struct restart_process *p,
			    uint64_t (*id)(const Reprise__Task *))
{
	vec_for_each (q, &r->processes) {
		if (vfork_is_child(q) && q >= p)
			continue;
		vec_for_each (t, &q->tasks)
			if (!t->msg->is_zombie && id(t->msg) == id(p->tasks.v[0].msg))
				return false;
	}
	return true;
}

static int fill_late(struct restart *r, struct restart_process *p, struct error *e)
{
	bool files = has_table_alone(r, p, files_of), fs = has_table_alone(r, p, fs_of);
	bool sets = epoll_is_added_late(r, p);
	int res = 0;

	if (files || fs || sets)
		res = vfork_open_control(r, p, files, e);
	if (res >= 0 && fs)
		res = fs_restart(r, &p->tasks.v[0], e);
	inodes_ended_finish(r);
	if (res >= 0 && sets)
		res = epoll_restart_late(r, p, e);
	if (res >= 0 && files)
		res = files_restart_fill(r, &p->tasks.v[0], e);
	else if (res >= 0 && (fs || sets))
		res = vfork_close_control(r, p, e);
	return res;
}

/* What it has by now is what the thread has that made it. */
static int complete(struct restart *r, struct restart_process *p, struct error *e)
{
	int res = fill_late(r, p, e);

	if (res >= 0)
		res = prepare_process(r, p, vfork_waiting_thread(p)->msg, e);
	return res < 0 ? error_object(e, res, "task %d (%s)", p->vpid, p->tasks.v[0].msg->comm) : 0;
}

static bool later_of_mm(struct restart *r, const struct restart_process *p)
{
	for (const struct restart_process *q = p + 1; q < r->processes.v + r->processes.n; q++)
		if (q->mm_id == p->mm_id && vfork_is_child(q))
			return true;
	return false;
}

/* The agent leaves with the last child, for which nobody waits any more. */
static int finish_late(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (p, &r->processes) {
		bool parent = vfork_is_parent(r, p);

		if (res < 0 || (!parent && !vfork_is_child(p)))
			continue;
		if (vfork_defers_limits(r, p))
			res = rlimits_restart(p, e);
		if (res >= 0)
			res = set_registers(r, p, !later_of_mm(r, p), e);
		if (res < 0)
			error_object(e, res, "task %d (%s)", p->vpid, p->tasks.v[0].msg->comm);
	}
	return res;
}

/* Children before parents, see stop_process(). */
int resume_prepare(struct restart *r, const struct tree_plan *plan, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Task now = REPRISE__TASK__INIT;
	int res = zombies_make(r, e);

	if (res >= 0)
		res = read_own_state(r, &now, &s, e);
	for (size_t i = r->processes.n; i > 0 && res >= 0; i--) {
		struct restart_process *p = &r->processes.v[i - 1];

		if (!p->msg->zombie && !vfork_is_child(p))
			res = prepare(r, p, &now, e);
	}
	if (res >= 0)
		res = tree_make_late(r, plan, terminal_session, complete, e);
	if (res >= 0)
		res = finish_late(r, e);
	if (res >= 0)
		res = inodes_restart_seal(r, e);
	/* From now on nobody touches their memory but themselves. */
	return res < 0 ? res : userfaultfd_restart_register(r, e);
}

int resume_all(struct restart *r, bool stopped, struct error *e)
{
	int res = 0;

	for (int turn = 0; turn < HANDOVER_TURNS; turn++)
		vec_for_each (p, &r->processes)
			if (res >= 0 && !p->msg->zombie && !p->let_go &&
			    handover_turn(r, p) == turn)
				res = let_go(r, p, stopped, e);
	if (res >= 0)
		handover_end(r);
	return res;
}
