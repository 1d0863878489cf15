/* SPDX-License-Identifier: Apache-2.0 */
#include "remote/freeze.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/reaper.h"
#include "remote/survey.h"

#define MAX_LOOKS	   5
#define RELEASE_TRIES	   3
#define SEIZE_TRIES	   3
#define MAX_ROUNDS	   1000
#define STUCK_MS	   20 /* after which we look why a task does not stop */
#define DEFAULT_TIMEOUT_MS 10000
#define KILL_TIMEOUT_MS	   10000
#define VFORK_MS	   200 /* the others stand still meanwhile */
#define NS_PER_MS	   1000000ULL

#define for_each_thread(f, p, t)          \
	vec_for_each (p, &(f)->processes) \
		vec_for_each (t, &(p)->threads)

/*
 * Is the task still traced by us, dead or alive? One that goes on is asked to stop
 * by the same request.
 */
static bool is_ours(pid_t tid)
{
	return trace_interrupt(tid, NULL) != -ESRCH;
}

static void forget_stop(struct frozen_thread *t)
{
	t->stopped = false;
	free(t->cpu);
	t->cpu = NULL;
}

void freezer_doubt(struct frozen_process *p)
{
	vec_for_each (t, &p->threads) {
		t->attached = t->attached && is_ours(t->tid);
		forget_stop(t);
	}
}

static int timeout_ms(const struct freezer *f)
{
	return f->timeout_ms > 0 ? f->timeout_ms : DEFAULT_TIMEOUT_MS;
}

/* Comes to a stop if it is not in one. */
static bool stand(struct frozen_thread *t)
{
	if (t->stopped)
		return true;
	if (trace_wait(t->tid, &t->stop, STUCK_MS, NULL) < 0 || t->stop.kind == TRACE_EXITED)
		return false;
	return t->stop.kind == TRACE_EVENT_STOP || t->stop.kind == TRACE_GROUP_STOP ||
	       trace_settle(t->tid, &t->stop, STUCK_MS, NULL) == 0;
}

/*
 * Lets one thread go. A task that never came to its stop has to do so first. One that was
 * killed in its stop has to be taken note of: its parent is not told before.
 */
static void let_go(struct frozen_thread *t)
{
	for (int i = 0; i < RELEASE_TRIES && t->attached; i++) {
		if (stand(t))
			ignore(trace_detach(t->tid, 0, NULL), "is_ours() tells");
		t->stopped = false;
		t->attached = is_ours(t->tid);
	}
	t->attached = false;
}

/* The leader comes last: its end is not reported while there are other threads. */
static void let_all_go(struct frozen_process *p)
{
	for (size_t i = p->threads.n; i > 0; i--)
		let_go(&p->threads.v[i - 1]);
}

/*
 * Takes over the list of a new walk: what is known of a thread moves into it,
 * and threads that are not in it any more are let go.
 */
static int adopt(struct freezer *f, struct freezer *now, struct error *e)
{
	_cleanup_(tid_map_free) struct tid_map known = {};
	VEC(struct frozen_thread *) old = {};
	int r = 0;

	for_each_thread(f, p, t)
	{
		struct frozen_thread **slot = vec_push(&old);

		if (slot)
			*slot = t;
		if (!slot || tid_map_add(&known, t->tid, (uint32_t)old.n - 1) < 0)
			r = -ENOMEM;
	}
	for_each_thread(now, p, t)
	{
		bool zombie = t->zombie;
		uint32_t i;

		if (r < 0 || !tid_map_find(&known, t->tid, &i))
			continue;
		*t = *old.v[i];
		t->zombie = zombie;
		old.v[i]->attached = false;
		old.v[i]->cpu = NULL;
	}
	vec_free(&old);
	if (r < 0)
		return error_set(e, r, E_NO_MEMORY, "cannot list the tasks of the tree");
	for_each_thread(f, p, t) let_go(t);
	survey_free(f);
	f->processes.v = now->processes.v;
	f->processes.n = now->processes.n;
	f->processes.cap = now->processes.cap;
	memset(&now->processes, 0, sizeof(now->processes));
	return 0;
}

static bool same_threads(const struct frozen_process *a, const struct frozen_process *b)
{
	if (a->pid != b->pid || a->zombie != b->zombie || a->threads.n != b->threads.n)
		return false;
	for (size_t i = 0; i < a->threads.n; i++)
		if (a->threads.v[i].tid != b->threads.v[i].tid ||
		    a->threads.v[i].zombie != b->threads.v[i].zombie)
			return false;
	return true;
}

/*
 * Is the tree what it was one walk ago? A task that has ended in between may have
 * left its children to one whose children we had listed before.
 */
static bool same_tree(const struct freezer *a, const struct freezer *b)
{
	if (a->processes.n != b->processes.n)
		return false;
	for (size_t i = 0; i < a->processes.n; i++)
		if (!same_threads(&a->processes.v[i], &b->processes.v[i]))
			return false;
	return true;
}

/* Returns whether nothing has changed. */
static int look_again(struct freezer *f, struct error *e)
{
	_cleanup_(survey_free) struct freezer now = {
		.proc_fd = f->proc_fd,
		.root = f->root,
		.self = f->self,
	};
	bool same;
	int r;

	now.workers.v = f->workers.v;
	now.workers.n = f->workers.n;
	r = survey_walk(&now, e);

	if (r < 0)
		return r;
	same = !now.moving && same_tree(f, &now);
	r = adopt(f, &now, e);
	return r < 0 ? r : same;
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
	if ((pid_t)tracer == gettid())
		return 0;
	error_clear(e);
	if (!tracer)
		return error_set(e, -EPERM, E_PERMISSION, "no permission to trace task %d", tid);
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

		if (t->attached || t->zombie)
			continue;
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

/* Asks all that are not ours yet to stop. Returns how many there were, even if they have ended. */
static int seize_new(struct freezer *f, struct sched_clocks *clocks, struct error *e)
{
	struct reaper reaper = {};
	int n;

	for_each_thread(f, p, t)
	{
		if (t->attached || t->zombie || sleep_observe(f->proc_fd, p->pid, t, clocks))
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

/* Until its child has called exec or ended nothing can stop the parent: the child may go on. */
static void release_vfork_child(struct freezer *f, const struct frozen_process *parent, pid_t tid)
{
	vec_for_each (p, &f->processes) {
		if (p->ppid != parent->pid || p->ptid != tid)
			continue;
		let_all_go(p);
	}
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
				 timeout_ms(f));
	return error_set(e, -EBUSY, E_TASK_UNINTERRUPTIBLE,
			 "task %d (state %c, in %s) did not stop within %d ms", tid, state, wchan,
			 timeout_ms(f));
}

/* Waits for a task that takes its time, for a known reason or not. */
static int wait_longer(struct freezer *f, struct frozen_process *p, struct frozen_thread *t,
		       struct error *e)
{
	uint64_t deadline = monotonic_ns() + (uint64_t)timeout_ms(f) * NS_PER_MS;
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
		r = trace_settle(t->tid, &t->stop, timeout_ms(f), e);
	if (r == -ETIMEDOUT)
		return never_stopped(f, p->pid, t->tid, false, '?', e);
	if (r == 0)
		t->stopped = true;
	return r;
}

/* Returns whether all came to their stop; some may have ended, or had to be let go again. */
static int wait_all(struct freezer *f, struct error *e)
{
	bool all = true;

	for_each_thread(f, p, t)
	{
		int r;

		if (t->zombie || t->stopped)
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
	return all;
}

/*
 * A task that stopped within a restartable sequence is to go on at its abort
 * handler: the kernel would see to that itself, but only as long as nothing else
 * is run in the task, see rseq_syscall() and rseq_ip_fixup().
 */
static int leave_rseq(struct frozen_thread *t, bool *changed, struct error *e)
{
	struct {
		uint32_t version, flags;
		uint64_t start, length, abort;
	} section;
	struct trace_rseq rseq;
	uint64_t at = 0, ip = arch_ip(&t->cpu->regs);
	int r;

	if (arch_call_nr(&t->cpu->regs) >= 0)
		return 0; /* there are no system calls inside */
	r = trace_get_rseq(t->tid, &rseq, e);
	if (r < 0 || !rseq.address)
		return r;
	/* What cannot be read the kernel would answer with SIGSEGV, in its own time. */
	if (mem_read(t->tid, rseq.address + 8, &at, sizeof(at), NULL) < 0 || !at ||
	    mem_read(t->tid, at, &section, sizeof(section), NULL) < 0)
		return 0;
	if (ip - section.start < section.length) {
		arch_set_ip(&t->cpu->regs, section.abort);
		*changed = true;
	}
	return 0;
}

static int save_thread(const struct freezer *f, pid_t pid, struct frozen_thread *t, struct error *e)
{
	bool changed = false;
	int r;

	t->cpu = aligned_alloc(_Alignof(struct cpu_state), sizeof(*t->cpu));
	if (!t->cpu)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot keep the registers of task %d",
				 t->tid);
	r = trace_save(t->tid, t->cpu, e);
	if (r < 0)
		return r;
	if (arch_is_compat(&t->cpu->regs))
		return error_set(e, -ENOTSUP, E_TASK_COMPAT, "task %d runs 32-bit code", t->tid);
	sleep_confirm(f->proc_fd, pid, t);
	r = leave_rseq(t, &changed, e);
	if (r == 0)
		r = sleep_undo_stop(f, pid, t, &changed, e);
	earlier_apply(f, t);
	if (r == 0 && changed)
		r = trace_set_regs(t->tid, &t->cpu->regs, e);
	return r;
}

/*
 * It was about to go on with restart_syscall(2) when we met it, and what that stands for is
 * seen only while it sleeps: it may fall asleep again. Until then it
 * counts as one that runs.
 */
static int let_sleep(struct freezer *f, pid_t pid, struct frozen_thread *t, struct error *e)
{
	int r = trace_cont(t->tid, 0, e);

	if (r < 0)
		return r;
	t->looks++;
	sleep_await(f->proc_fd, pid, t);
	return trace_interrupt(t->tid, e);
}

static bool is_obscure(const struct frozen_thread *t)
{
	return arch_call_nr(&t->cpu->regs) == arch_restart_syscall_nr() &&
	       t->cpu->restarted_nr < 0 && t->stop.kind == TRACE_EVENT_STOP && t->looks < MAX_LOOKS;
}

/* Returns whether all could be read: a task may be killed even now. */
static int save_all(struct freezer *f, struct error *e)
{
	bool all = true;

	vec_for_each (p, &f->processes) {
		p->job_stopped = false;
		vec_for_each (t, &p->threads) {
			int r = 0;

			if (t->zombie)
				continue;
			if (t->stop.kind == TRACE_GROUP_STOP) {
				p->job_stopped = true;
				p->stop_signal = t->stop.signal;
			}
			if (!t->cpu)
				r = save_thread(f, p->pid, t, e);
			if (r == 0 && is_obscure(t)) {
				r = let_sleep(f, p->pid, t, e);
				forget_stop(t);
				all = false;
			}
			if (r == -ESRCH) {
				error_clear(e);
				freezer_doubt(p);
				all = false;
			} else if (r < 0) {
				return r;
			}
		}
	}
	return all;
}

/*
 * One round: all are asked to stop and waited for. Returns whether nothing was left to
 * do: *standing tells whether all stood before it.
 */
static int freeze_round(struct freezer *f, struct sched_clocks *clocks, bool *standing,
			struct error *e)
{
	bool stood = *standing;
	int same = look_again(f, e), asked, r;

	if (same < 0)
		return same;
	asked = seize_new(f, clocks, e);
	if (asked < 0)
		return asked;
	r = wait_all(f, e);
	*standing = r > 0;
	if (r <= 0 || !stood || !same || asked)
		return r < 0 ? r : 0;
	r = save_all(f, e);
	*standing = r > 0;
	return r;
}

static int freeze_tree(struct freezer *f, struct sched_clocks *clocks, struct error *e)
{
	uint64_t deadline = monotonic_ns() + 2 * (uint64_t)timeout_ms(f) * NS_PER_MS;
	bool standing = false;

	for (int round = 0; round < MAX_ROUNDS && monotonic_ns() < deadline; round++) {
		int r = freeze_round(f, clocks, &standing, e);

		if (r)
			return r < 0 ? r : 0;
	}
	return error_set(e, -EBUSY, E_TASK_BUSY,
			 "the tasks below process %d change faster than they can be stopped",
			 f->root);
}

int freezer_freeze(struct freezer *f, struct error *e)
{
	struct sched_clocks clocks = {};
	int r = earlier_note(f);

	if (r < 0)
		return error_set(e, r, E_NO_MEMORY, "cannot list the tasks of the tree");
	survey_free(f);
	f->attached = true;
	f->interrupted_at = 0;
	r = freeze_tree(f, &clocks, e);
	vec_free(&clocks.clocks);
	if (r < 0)
		freezer_thaw(f);
	return r;
}

void freezer_thaw(struct freezer *f)
{
	if (!f->attached)
		return;
	for_each_thread(f, p, t) let_go(t);
	f->attached = false;
}

void freezer_free(struct freezer *f)
{
	freezer_thaw(f);
	survey_free(f);
	vec_free(&f->workers);
	vec_free(&f->earlier);
}

/* As their tracer we are told first; the parents hear of it once we have listened. */
static void reap(struct frozen_thread *t)
{
	uint64_t deadline = monotonic_ns() + KILL_TIMEOUT_MS * NS_PER_MS;
	int r = 0;

	while (r == 0 && t->attached && monotonic_ns() < deadline) {
		r = trace_wait(t->tid, &t->stop, KILL_TIMEOUT_MS, NULL);
		if (r < 0 || t->stop.kind == TRACE_EXITED)
			t->attached = false;
	}
}

/* 0 also for a process that has ended. */
static int send_signal(const struct freezer *f, pid_t pid, int sig, struct error *e)
{
	int r;

	if (f->root_is_init)
		r = f->kill(f->kill_arg, pid, sig);
	else
		r = kill(pid, sig) < 0 ? -errno : 0;
	if (r < 0 && r != -ESRCH)
		return error_errno(e, r, E_PERMISSION, "cannot send signal %d to process %d", sig,
				   pid);
	return 0;
}

/*
 * The end of a pid namespace is the end of everybody in it, us included: so it
 * comes when we end, before any task runs again.
 */
static int kill_at_exit(struct freezer *f, struct error *e)
{
	int r = f->kill(f->kill_arg, f->root, SIGKILL);

	if (r < 0)
		return error_errno(e, r, E_PERMISSION, "cannot kill process %d", f->root);
	vec_for_each (p, &f->processes)
		vec_for_each (t, &p->threads)
			if (t->attached && r >= 0)
				r = trace_set_options(t->tid, PTRACE_O_EXITKILL, e);
	if (r >= 0)
		f->attached = false;
	return r;
}

int freezer_kill(struct freezer *f, struct error *e)
{
	int r = 0;

	if (f->root_is_init)
		return kill_at_exit(f, e);
	vec_for_each (p, &f->processes)
		if (!p->zombie && r >= 0)
			r = send_signal(f, p->pid, SIGKILL, e);
	if (r < 0)
		return r;
	vec_for_each (p, &f->processes) {
		/* The leader comes last. */
		for (size_t i = p->threads.n; i > 0; i--)
			reap(&p->threads.v[i - 1]);
	}
	f->attached = false;
	return 0;
}

int freezer_stop(struct freezer *f, struct error *e)
{
	int r = 0;

	/*
	 * The signal is pending before the first thread goes on. That one takes it on its way to
	 * user mode and stops all others of its process, those that we still hold as well.
	 */
	vec_for_each (p, &f->processes)
		if (!p->zombie && !p->job_stopped && r >= 0)
			r = send_signal(f, p->pid, SIGSTOP, e);
	freezer_thaw(f);
	return r;
}
