/* SPDX-License-Identifier: Apache-2.0 */
/* The threads of a process, at a restart. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "kernel/clone.h"
#include "kernel/sharing.h"
#include "kernel/user_task.h"
#include "kernel/vfork.h"
#include "ns/spaces.h"

#define THREADS_AT_ONCE 128
#define THREAD_TRIES	200
#define THREAD_FLAGS	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)

/* Threads that have a table of their own leave the one they were made with. */
static int unshare_tables(struct restart_process *p, struct restart_task *t, struct error *e)
{
	const Reprise__Task *leader = tree_leader(p);
	uint64_t flags = 0;
	long res;

	if (t->msg->files != leader->files && !leader->is_zombie)
		flags |= CLONE_FILES;
	if (t->msg->fs != leader->fs && !leader->is_zombie)
		flags |= CLONE_FS;
	if (!flags)
		return 0;
	res = agent_syscall(p->agent, t->tid, NULL, e, SYS_unshare, (const uint64_t[6]){flags});
	return res < 0 ? error_errno(e, (int)res, E_RESTORE, "thread %d: unshare", t->vtid) : 0;
}

/* A leader that has exited has no SEM_UNDO list any more: those that its threads share is the first
 * one's. */
static uint64_t shared_undo(const struct restart_process *p)
{
	return p->tasks.v[p->tasks.v[0].msg->is_zombie && p->tasks.n > 1].msg->sysvsem;
}

static uint64_t flags_of(const struct restart_process *p, const struct restart_task *t)
{
	return THREAD_FLAGS | (t->msg->sysvsem == shared_undo(p) ? CLONE_SYSVSEM : 0);
}

static int clone_threads(struct restart *r, struct restart_process *p, size_t first, size_t last,
			 struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	struct levels ids;
	int res;

	for (size_t i = first; i < last; i++) {
		res = levels_of(r, p->msg->pid_namespace, p->tasks.v[i].vtid, &ids, e);
		if (res < 0)
			return res;
		batch_must(&b, clone_add(&b, flags_of(p, &p->tasks.v[i]), 0, &ids));
	}
	res = agent_run(p->agent, p->pid, NULL, &b, e);
	if (res < 0)
		return res;
	if (batch_failed(&b) >= 0)
		return clone_failed(batch_result(&b, batch_failed(&b)),
				    p->tasks.v[first + (size_t)batch_failed(&b)].vtid, e);
	return 0;
}

static DIR *open_threads(struct restart *r, const struct restart_process *p, struct error *e)
{
	int fd = procfs_open(r->proc_fd, O_RDONLY | O_DIRECTORY | O_CLOEXEC, e, "%d/task", p->pid);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir && fd >= 0) {
		close_fd(&fd);
		error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a directory");
	}
	return dir;
}

/* In a pid namespace of its own: which of the threads that we see is which. */
static int find_threads(struct restart *r, struct restart_process *p, struct error *e)
{
	_cleanup_(close_directory) DIR *dir = open_threads(r, p, e);
	struct dirent *d;
	int ended = 0;

	if (!dir)
		return e->err;
	while ((d = next_entry(dir, &ended))) {
		pid_t tid = (pid_t)atoi(d->d_name), vtid = tid ? tree_pid_at(r, p->pid, tid, 0) : 0;

		for (size_t i = 1; i < p->tasks.n && vtid; i++)
			if (p->tasks.v[i].vtid == vtid)
				p->tasks.v[i].tid = tid;
	}
	return ended < 0 ? error_errno(e, ended, E_SYSTEM, "cannot list the threads") : 0;
}

/* ---- in a user namespace ---- */

/* Our name for the thread that has this number at a depth below the root. */
static pid_t find_thread(struct restart *r, const struct restart_process *p, pid_t number,
			 size_t depth, struct error *e)
{
	_cleanup_(close_directory) DIR *dir = open_threads(r, p, e);
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		pid_t tid = (pid_t)atoi(d->d_name);

		if (tid && tree_pid_at(r, p->pid, tid, depth) == number)
			return tid;
	}
	return dir ? error_set(e, -ESRCH, E_RESTORE, "a thread was made but is not found") : e->err;
}

static int take_back(struct restart_process *p, struct restart_task *t, struct error *e)
{
	struct trace_stop stop;
	int r = agent_exit(p->agent, t->tid, 0, 0, AGENT_END_THREAD, e);

	if (r >= 0)
		r = trace_cont(t->tid, 0, e);
	if (r >= 0)
		r = trace_wait(t->tid, &stop, -1, e);
	t->tid = 0;
	return r < 0 ? r : -EAGAIN;
}

/* -EAGAIN: somebody else was faster. */
static int clone_led(struct restart *r, struct restart_process *p, struct restart_task *t,
		     const struct levels *ids, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	const uint32_t last = levels_last(r);
	struct levels inner = *ids;
	struct trace_stop stop;
	int call, res;

	inner.n = user_task_chooses(r, p->user_space, p->msg->pid_namespace, ids->n);
	res = levels_lead_all(r, p->msg->pid_namespace, ids, inner.n, e);
	if (res < 0)
		return res;
	call = clone_add(&b, flags_of(p, t), 0, &inner);
	res = agent_run(p->agent, p->pid, NULL, &b, e);
	levels_lead_back(r, last);
	if (res >= 0 && batch_result(&b, call) < 0)
		res = clone_failed(batch_result(&b, call), t->vtid, e);
	if (res >= 0)
		res = t->tid = find_thread(r, p, (pid_t)batch_result(&b, call), ids->n - 1, e);
	if (res >= 0)
		res = trace_wait(t->tid, &stop, -1, e);
	for (size_t i = 0; i < ids->n && res >= 0; i++)
		if (tree_pid_at(r, p->pid, t->tid, i) != ids->v[ids->n - 1 - i])
			return take_back(p, t, e);
	return res;
}

/* There, not all numbers of a thread may be chosen (alloc_pid()): it is led to them. */
static int lead_threads(struct restart *r, struct restart_process *p, struct error *e)
{
	uint64_t user = p->msg->user_namespace;
	int res = 0;

	/* made by its parent, which is there */
	if (vfork_is_child(p))
		p->user_space = user;
	if (p->user_space != user)
		res = user_task_enter(r, p, user, e);

	for (size_t i = 1; i < p->tasks.n && res >= 0; i++) {
		struct restart_task *t = &p->tasks.v[i];
		struct levels ids;

		res = levels_of(r, p->msg->pid_namespace, t->vtid, &ids, e);
		if (res < 0)
			return res;
		for (int tries = 0; tries < THREAD_TRIES; tries++) {
			res = clone_led(r, p, t, &ids, e);
			if (res != -EAGAIN)
				break;
		}
		if (res == -EAGAIN)
			res = clone_failed(-EEXIST, t->vtid, e);
	}
	return res;
}

/* ---- */

static int choose_threads(struct restart *r, struct restart_process *p, struct error *e)
{
	int res = 0;

	for (size_t i = 1; i < p->tasks.n && res >= 0; i += THREADS_AT_ONCE)
		res = clone_threads(
			r, p, i,
			i + THREADS_AT_ONCE < p->tasks.n ? i + THREADS_AT_ONCE : p->tasks.n, e);
	for (size_t i = 1; i < p->tasks.n; i++)
		p->tasks.v[i].tid = p->tasks.v[i].vtid;
	if (res >= 0 && r->pidns)
		res = find_threads(r, p, e);
	for (size_t i = 1; i < p->tasks.n && res >= 0; i++) {
		struct trace_stop stop;

		res = trace_wait(p->tasks.v[i].tid, &stop, -1, e);
	}
	return res;
}

int threads_make(struct restart *r, struct restart_process *p, struct error *e)
{
	const struct levels_maker maker = {p->pid, p->agent, p->msg->pid_namespace,
					   &p->children_space};
	int res = levels_go(r, &maker, maker.space, e);

	if (res >= 0)
		res = p->msg->user_namespace ? lead_threads(r, p, e) : choose_threads(r, p, e);
	for (size_t i = 1; i < p->tasks.n && res >= 0; i++) {
		res = unshare_tables(p, &p->tasks.v[i], e);
		if (res >= 0)
			res = spaces_enter(r, &p->tasks.v[i], e);
	}
	return res;
}
