/* SPDX-License-Identifier: Apache-2.0 */
#include "remote/freeze.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/agent.h"
#include "remote/kernel_task.h"
#include "remote/reaper.h"
#include "remote/survey.h"

#define MAX_LOOKS	5
#define MAX_ROUNDS	1000
#define FAULT_PEEK	8
#define KILL_TIMEOUT_MS 10000
#define NS_PER_MS	1000000ULL

/* A thread that has gone may have called exec: then it has the number of its leader, and what was
 * known of that one is not true of it. */
static void doubt_of(struct freezer *f, pid_t pid)
{
	vec_for_each (p, &f->processes)
		if (p->pid == pid)
			freezer_doubt(p);
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
		old.v[i]->kernel = NULL;
	}
	vec_free(&old);
	if (r < 0)
		return error_set(e, r, E_NO_MEMORY, "cannot list the tasks of the tree");
	for_each_thread(f, p, t)
	{
		if (t->attached)
			doubt_of(now, p->pid);
		thread_let_go(f, p->pid, t);
	}
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

/*
 * A program of one width may execute code of the other one. Then nobody knows by which interface it
 * has set its signal handlers, so that it is left alone.
 */
static int check_mode(const struct freezer *f, const struct frozen_thread *t, struct error *e)
{
	const struct user_regs_struct *regs = &t->cpu->regs;
	bool compat = arch_is_compat(regs);
	int r;

	if (arch_is_odd(regs))
		return error_set(e, -ENOTSUP, E_TASK_COMPAT,
				 "task %d runs code in segments of its own", t->tid);
	if (compat && freezer_program(f->proc_fd, t->tid) != ARCH_PROGRAM_32)
		return error_set(e, -ENOTSUP, E_TASK_COMPAT,
				 "task %d runs 32-bit code in a 64-bit program", t->tid);
	if (!compat && freezer_is_compat(f->proc_fd, t->tid, arch_sp(regs)))
		return error_set(e, -ENOTSUP, E_TASK_COMPAT,
				 "task %d runs 64-bit code in a 32-bit program", t->tid);
	if (compat || arch_call_nr(regs) < 0)
		return 0;
	r = trace_is_compat_call(t->tid, e);
	return r <= 0 ? r
		      : error_set(e, -ENOTSUP, E_TASK_COMPAT,
				  "task %d makes a system call of 32-bit programs (int 0x80)",
				  t->tid);
}

/*
 * Signals of faults that the thread has just made. Tracing stops come before them (get_signal()),
 * so one that stops on its way out of a fault has its signal still pending. That is seen where it
 * is in no system call, or in one that a seccomp filter has rolled back (force_sig_seccomp()).
 */
static int find_faults(struct frozen_thread *t, struct error *e)
{
	const struct user_regs_struct *regs = &t->cpu->regs;
	siginfo_t infos[FAULT_PEEK];
	uint64_t offset = 0;
	int n = FAULT_PEEK;

	if (arch_call_nr(regs) >= 0 && arch_call_result(regs) != arch_call_raw(arch_call_nr(regs)))
		return 0;
	for (; n == FAULT_PEEK; offset += (uint64_t)n) {
		n = trace_peek_siginfo(t->tid, false, offset, infos, FAULT_PEEK, e);
		if (n < 0)
			return n;
		for (int i = 0; i < n; i++)
			if (infos[i].si_code > 0)
				t->cpu->faults |= SIGNAL_BIT(infos[i].si_signo);
	}
	t->cpu->faults &= FAULT_SIGNALS & ~t->cpu->sigmask;
	return 0;
}

/* One that is stopped by job control must not go on. */
static bool has_fault(const struct frozen_thread *t)
{
	return t->cpu->faults && t->stop.kind == TRACE_EVENT_STOP;
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
	r = check_mode(f, t, e);
	if (r == 0)
		r = find_faults(t, e);
	/* It is given to the handler first, and met there: see take_fault(). */
	if (r < 0 || has_fault(t))
		return r;
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

/*
 * What the processor said of a fault (address, number, error code) stands in the thread until its
 * handler is called, and could not be put there again (setup_sigcontext()). Nothing of the program
 * runs here but that the kernel builds the handler's frame: the next stop is that of the signal,
 * and from there trace_settle() leads to the handler's first instruction.
 */
static int take_fault(struct frozen_thread *t, struct error *e)
{
	thread_forget_stop(t);
	return trace_cont(t->tid, 0, e);
}

static bool is_obscure(const struct frozen_thread *t)
{
	return arch_is_restart_syscall(arch_call_nr(&t->cpu->regs)) && t->cpu->restarted_nr < 0 &&
	       t->stop.kind == TRACE_EVENT_STOP && t->looks < MAX_LOOKS;
}

/* Returns whether all could be read: a task may be killed even now. */
static int save_all(struct freezer *f, struct error *e)
{
	bool all = true;

	vec_for_each (p, &f->processes) {
		p->job_stopped = false;
		vec_for_each (t, &p->threads) {
			int r = 0;

			if (t->zombie || t->in_vfork)
				continue;
			if (t->stop.kind == TRACE_GROUP_STOP) {
				p->job_stopped = true;
				p->stop_signal = t->stop.signal;
			}
			if (!t->cpu)
				r = save_thread(f, p->pid, t, e);
			if (r == 0 && has_fault(t)) {
				r = take_fault(t, e);
				all = false;
			} else if (r == 0 && is_obscure(t)) {
				r = let_sleep(f, p->pid, t, e);
				thread_forget_stop(t);
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

/* Children before parents, since they lend their parents what is alike. */
static int save_waiting(struct freezer *f, struct error *e)
{
	for (size_t i = f->processes.n; i > 0; i--) {
		struct frozen_process *p = &f->processes.v[i - 1];

		vec_for_each (t, &p->threads) {
			int r = t->in_vfork ? vfork_save(f, p, t, e) : 0;

			if (r < 0)
				return r;
		}
	}
	return 0;
}

/*
 * One round: all are asked to stop and waited for. Returns whether nothing was left to
 * do: *standing tells whether all stood before it.
 */
static int freeze_round(struct freezer *f, struct sched_clocks *clocks, bool *standing,
			struct error *e)
{
	bool stood = *standing;
	int same = look_again(f, e), asked, waiting, r;

	if (same < 0)
		return same;
	asked = seize_new(f, clocks, e);
	if (asked < 0)
		return asked;
	if (asked && f->hold)
		f->hold(f->hold_arg, false);
	r = seize_wait(f, e);
	*standing = r > 0;
	if (r <= 0 || !stood || !same || asked)
		return r < 0 ? r : 0;
	r = save_all(f, e);
	*standing = r > 0;
	waiting = r > 0 ? save_waiting(f, e) : 0;
	return waiting < 0 ? waiting : r;
}

static int freeze_tree(struct freezer *f, struct sched_clocks *clocks, struct error *e)
{
	uint64_t deadline = monotonic_ns() + 2 * (uint64_t)freezer_timeout_ms(f) * NS_PER_MS;
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

/*
 * On a busy machine each wait of ours would last as long as the scheduler lets others run, while
 * all tasks stand still: 0.6 s instead of 60 ms for 20 of them. Threads that we make have it, too.
 */
static void hurry(struct freezer *f)
{
	if (f->patient || f->hurried)
		return;
	f->nice = getpriority(PRIO_PROCESS, 0);
	f->hurried = setpriority(PRIO_PROCESS, 0, PRIO_MIN) == 0; /* who may not does not */
}

static void calm(struct freezer *f)
{
	if (f->hurried)
		ignore(setpriority(PRIO_PROCESS, 0, f->nice), "it was so before");
	f->hurried = false;
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
	hurry(f);
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
	if (f->hold)
		f->hold(f->hold_arg, true);
	for_each_thread(f, p, t) thread_let_go(f, p->pid, t);
	f->attached = false;
	calm(f);
}

void freezer_free(struct freezer *f)
{
	freezer_thaw(f);
	survey_free(f);
	vec_free(&f->workers);
	vec_free(&f->earlier);
	kernel_memory_free(f->memory);
	f->memory = NULL;
	f->memory_tried = false;
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
	/*
	 * Who waits in vfork() must not see the end of its child: the last to be attached is the
	 * first to be killed (exit_ptrace()), and so it is with parents before their children.
	 */
	for (size_t i = f->processes.n; i > 0; i--)
		vec_for_each (t, &f->processes.v[i - 1].threads)
			if (t->in_vfork && r >= 0)
				r = trace_seize(t->tid, PTRACE_O_EXITKILL, e);
	if (r >= 0)
		f->attached = false;
	calm(f);
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
	/* The first process of a pid namespace waits for all others (zap_pid_ns_processes()). */
	for (size_t k = f->processes.n; k > 0; k--) {
		struct frozen_process *p = &f->processes.v[k - 1];

		/* The leader comes last. */
		for (size_t i = p->threads.n; i > 0; i--)
			reap(&p->threads.v[i - 1]);
	}
	f->attached = false;
	calm(f);
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
