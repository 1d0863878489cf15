/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/reaper.h"
#include "remote/survey.h"

/*
 * Attaching to threads, waiting for their stops, and letting them go.
 */

#define RELEASE_TRIES	   3
#define SEIZE_TRIES	   3
#define STUCK_MS	   20 /* after which we look why a task does not stop */
#define DEFAULT_TIMEOUT_MS 10000
#define VFORK_MS	   200 /* the others stand still meanwhile */
#define SPARE_NS	   500000
#define NS_PER_MS	   1000000ULL

/*
 * Is the task still traced by us, dead or alive? One that goes on is asked to stop
 * by the same request.
 */
static bool is_ours(pid_t tid)
{
	return trace_interrupt(tid, NULL) != -ESRCH;
}

void thread_forget_stop(struct frozen_thread *t)
{
	t->stopped = false;
	free(t->cpu);
	t->cpu = NULL;
	free(t->kernel);
	t->kernel = NULL;
}

void freezer_doubt(struct frozen_process *p)
{
	vec_for_each (t, &p->threads) {
		t->attached = t->attached && is_ours(t->tid);
		thread_forget_stop(t);
	}
}

int freezer_timeout_ms(const struct freezer *f)
{
	return f->timeout_ms > 0 ? f->timeout_ms : DEFAULT_TIMEOUT_MS;
}

/* Comes to a stop if it is not in one. */
static bool stand(const struct freezer *f, pid_t pid, struct frozen_thread *t)
{
	if (t->stopped)
		return true;
	if (trace_wait(t->tid, &t->stop, STUCK_MS, NULL) < 0 || t->stop.kind == TRACE_EXITED)
		return false;
	if (t->stop.kind != TRACE_EVENT_STOP && t->stop.kind != TRACE_GROUP_STOP &&
	    trace_settle(t->tid, &t->stop, STUCK_MS, NULL) < 0)
		return false;
	sleep_reissue(f, pid, t);
	return true;
}

/*
 * Lets one thread go. A task that never came to its stop has to do so first. One that was
 * killed in its stop has to be taken note of: its parent is not told before.
 */
void thread_let_go(const struct freezer *f, pid_t pid, struct frozen_thread *t)
{
	for (int i = 0; i < RELEASE_TRIES && t->attached; i++) {
		if (stand(f, pid, t)) {
			sleep_release(f, pid, t);
			ignore(trace_detach(t->tid, 0, NULL), "is_ours() tells");
		}
		t->stopped = false;
		t->attached = is_ours(t->tid);
	}
	t->attached = false;
}

/* The leader comes last: its end is not reported while there are other threads. */
static void let_all_go(const struct freezer *f, struct frozen_process *p)
{
	for (size_t i = p->threads.n; i > 0; i--)
		thread_let_go(f, p->pid, &p->threads.v[i - 1]);
}

static int no_permission(const struct freezer *f, pid_t tid, struct error *e)
{
	static const char *const allowed[] = {"its ancestors alone may", "CAP_SYS_PTRACE alone may",
					      "nobody may"};
	_cleanup_(free_ptr) char *text = NULL;
	int scope = procfs_read(f->proc_fd, &text, NULL, "sys/kernel/yama/ptrace_scope") > 0
			    ? atoi(text)
			    : 0;

	if (scope < 1 || scope > 3)
		return error_set(e, -EPERM, E_PERMISSION, "no permission to trace task %d", tid);
	return error_set(
		e, -EPERM, E_PERMISSION,
		"no permission to trace task %d (%s, since kernel.yama.ptrace_scope is %d)", tid,
		allowed[scope - 1], scope);
}

int freezer_check_access(const struct freezer *f, pid_t tid, struct error *e)
{
	char byte;
	const struct iovec here = {&byte, 1}, there = {NULL, 1};

	if (process_vm_readv(tid, &here, 1, &there, 1, 0) >= 0 || errno != EPERM)
		return 0;
	return no_permission(f, tid, e);
}

/* Why a task may not be traced. Returns -EAGAIN if it ends just now, 0 if it is ours already. */
static int refused(struct freezer *f, pid_t pid, pid_t tid, int err, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL, *comm = NULL;
	uint64_t tracer = 0;
	size_t len;
	const char *state;

	if (err != -EPERM ||
	    procfs_read(f->proc_fd, &status, NULL, "%d/task/%d/status", pid, tid) < 0)
		return err == -EPERM || err == -ESRCH ? -EAGAIN : err;
	state = proc_field(status, "State", &len);
	if (state && (*state == 'Z' || *state == 'X'))
		return -EAGAIN;
	ignore(proc_field_u64(status, "TracerPid", 10, &tracer), "zero where there is none");
	error_clear(e);
	/* by that only which of us traces (ptrace_check_attach()) */
	if (trace_interrupt(tid, NULL) == 0)
		return 0;
	/* A tracer outside of its pid namespace has no number in there. */
	if (!tracer && geteuid() == 0)
		return error_set(e, -EPERM, E_TASK_TRACED,
				 "task %d may not be traced: somebody outside of its pid namespace "
				 "does so already, or reprise lacks CAP_SYS_PTRACE",
				 tid);
	if (!tracer)
		return no_permission(f, tid, e);
	if (procfs_read(f->proc_fd, &comm, NULL, "%d/comm", (pid_t)tracer) > 0)
		comm[strcspn(comm, "\n")] = '\0';
	return error_set(e, -EBUSY, E_TASK_TRACED, "task %d is being traced by task %d (%s)", tid,
			 (pid_t)tracer, comm ? comm : "?");
}

/* Attaches to a thread and asks it to stop. -EAGAIN: it ends just now. */
static int seize(struct freezer *f, struct reaper *reaper, struct frozen_process *p,
		 struct frozen_thread *t, struct error *e)
{
	int r = -EPERM;

	/* By exec a new task takes the id of one that has just ended: it is asked, too. */
	for (int i = 0; i < SEIZE_TRIES && r == -EPERM; i++) {
		error_clear(e);
		r = reaper_begin(reaper, p, e);
		if (r < 0)
			return r;
		r = trace_seize(t->tid, 0, e);
		if (reaper_end(reaper))
			freezer_doubt(p);
		if (r < 0)
			r = refused(f, p->pid, t->tid, r, e);
	}
	if (r < 0)
		return r;
	error_clear(e);
	t->attached = true;
	r = trace_interrupt(t->tid, e);
	return r == -ESRCH ? -EAGAIN : r;
}

static int seize_all(struct freezer *f, struct reaper *reaper, struct error *e)
{
	int n = 0;

	for_each_thread(f, p, t)
	{
		int r;

		if (t->attached || t->zombie || t->in_vfork || t->spared)
			continue;
		thread_forget_stop(t);
		/* The next walk leaves it out. What it works on goes on, and ends: see
		 * src/fs/uring.c. */
		r = t->worker ? -EAGAIN : seize(f, reaper, p, t, e);
		if (r == -EAGAIN)
			error_clear(e);
		else if (r < 0)
			return r;
		n++;
	}
	return n;
}

/* Until its child has called exec or ended nothing can stop the parent: the child may go on. */
static void release_vfork_child(struct freezer *f, const struct frozen_process *parent, pid_t tid)
{
	vec_for_each (p, &f->processes) {
		if (p->ppid != parent->pid || p->ptid != tid)
			continue;
		let_all_go(f, p);
	}
}

/* Neither is stopped in this round: the wait is about to end. */
static void spare(struct freezer *f, const struct frozen_process *p, struct frozen_thread *t)
{
	t->in_vfork = false;
	t->spared = true;
	release_vfork_child(f, p, t->tid);
	vec_for_each (q, &f->processes)
		vec_for_each (child, &q->threads)
			child->spared |= q->ppid == p->pid && q->ptid == t->tid;
}

/* Asks all that are not ours yet to stop. Returns how many there were, even if they have ended. */
int seize_new(struct freezer *f, struct sched_clocks *clocks, struct error *e)
{
	struct reaper reaper = {};
	int n;

	for_each_thread(f, p, t) t->spared = false;
	for_each_thread(f, p, t)
	{
		long nr;

		if (t->attached || t->zombie)
			continue;
		nr = sleep_observe(f->proc_fd, p->pid, t, clocks);
		t->in_vfork = vfork_is_call(nr) && vfork_holds(f, p->pid, t->tid);
		if (!t->in_vfork)
			t->vfork_since = 0;
		else if (!vfork_lasts(f, p->pid, t))
			spare(f, p, t);
		if (nr >= 0)
			continue;
		n = freezer_note_worker(f, p->pid, t->tid);
		if (n < 0)
			return error_set(e, n, E_NO_MEMORY, "cannot list the tasks of the tree");
		t->worker = n > 0;
	}
	if (!f->interrupted_at)
		f->interrupted_at = monotonic_ns();
	n = seize_all(f, &reaper, e);
	reaper_stop(&reaper);
	return n;
}

static int never_stopped(const struct freezer *f, pid_t pid, pid_t tid, bool vfork, char state,
			 struct error *e)
{
	_cleanup_(free_ptr) char *wchan = NULL;

	if (vfork)
		return error_set(e, -EBUSY, E_TASK_VFORK,
				 "task %d waits in vfork() for a child that goes on and on", tid);
	if (procfs_read(f->proc_fd, &wchan, NULL, "%d/task/%d/wchan", pid, tid) <= 0 ||
	    *wchan == '0')
		return error_set(e, -EBUSY, E_TASK_UNINTERRUPTIBLE,
				 "task %d (state %c) did not stop within %d ms", tid, state,
				 freezer_timeout_ms(f));
	return error_set(e, -EBUSY, E_TASK_UNINTERRUPTIBLE,
			 "task %d (state %c, in %s) did not stop within %d ms", tid, state, wchan,
			 freezer_timeout_ms(f));
}

/* Waits for a task that takes its time, for a known reason or not. */
static int wait_longer(struct freezer *f, struct frozen_process *p, struct frozen_thread *t,
		       struct error *e)
{
	uint64_t deadline = monotonic_ns() + (uint64_t)freezer_timeout_ms(f) * NS_PER_MS;
	bool vfork = false;

	for (;;) {
		struct proc_stat st;
		int r = proc_stat_read(f->proc_fd, p->pid, t->tid, &st, e);

		if (r < 0)
			return r;
		if (st.state == 'Z' || st.state == 'X') {
			/* A leader that has ended is reported when its threads have ended too. */
			t->zombie = t->tid == p->pid;
			return t->zombie ? 0 : -ESRCH;
		}
		/* An exec waits for others to end, or has put a new task in the place of this one.
		 */
		if (reaper_listen(p) || !is_ours(t->tid))
			return -ESRCH;
		if (freezer_in_vfork(f, p->pid, t->tid, st.state)) {
			uint64_t patience = monotonic_ns() + VFORK_MS * NS_PER_MS;

			if (!vfork && deadline > patience)
				deadline = patience;
			vfork = true;
			release_vfork_child(f, p, t->tid);
		}
		r = trace_wait(t->tid, &t->stop, STUCK_MS, e);
		if (r != -ETIMEDOUT)
			return r;
		if (monotonic_ns() > deadline)
			return never_stopped(f, p->pid, t->tid, vfork, st.state, e);
	}
}

static int wait_stop(struct freezer *f, struct frozen_process *p, struct frozen_thread *t,
		     struct error *e)
{
	int r = trace_wait(t->tid, &t->stop, STUCK_MS, e);

	if (r == -ETIMEDOUT)
		r = wait_longer(f, p, t, e);
	if (r == 0 && t->zombie)
		return 0;
	if (r == 0 && t->stop.kind == TRACE_EXITED)
		r = -ESRCH;
	if (r == 0 && t->stop.kind != TRACE_EVENT_STOP && t->stop.kind != TRACE_GROUP_STOP)
		r = trace_settle(t->tid, &t->stop, freezer_timeout_ms(f), e);
	if (r == -ETIMEDOUT)
		return never_stopped(f, p->pid, t->tid, false, '?', e);
	if (r < 0)
		return r;
	sleep_reissue(f, p->pid, t);
	t->stopped = true;
	return 0;
}

/* Returns whether all came to their stop; some may have ended, or had to be let go again. */
int seize_wait(struct freezer *f, struct error *e)
{
	bool all = true, spared = false;

	for_each_thread(f, p, t)
	{
		int r;

		spared |= t->spared;

		/* What waits in vfork() is held by its child. */
		if (t->zombie || t->stopped || t->in_vfork)
			continue;
		all = all && t->attached;
		if (!t->attached)
			continue;
		r = wait_stop(f, p, t, e);
		if (r == -ESRCH) {
			error_clear(e);
			freezer_doubt(p);
			all = false;
		} else if (r < 0) {
			return r;
		}
	}
	if (spared)
		nanosleep(&(struct timespec){.tv_nsec = SPARE_NS}, NULL);
	return all && !spared;
}
