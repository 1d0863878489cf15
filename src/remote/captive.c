/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "remote/agent.h"

/*
 * Signals that the kernel never sends by itself, in the order in which we would
 * have them: the first that is not pending already ends the batch.
 */
static const int stop_signals[] = {SIGSTKFLT, SIGPWR,  SIGXFSZ, SIGVTALRM, SIGPROF,
				   SIGUSR2,   SIGUSR1, SIGIO,	SIGXCPU,   SIGURG};

void agent_place(void *at)
{
	memcpy(at, arch_agent_code, (size_t)(arch_agent_code_end - arch_agent_code));
}

int agent_captive(struct agent **ret, pid_t tid, uint64_t at, struct error *e)
{
	struct agent *a = calloc(1, sizeof(*a));

	if (!a)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot make an agent");
	a->tid = tid;
	a->mapping = at;
	*ret = a;
	return 0;
}

/* Signals that the batch itself may queue: a pending signal is put back by a call that names it. */
static uint64_t named_signals(const struct batch *b)
{
	uint64_t named = 0;

	for (uint32_t i = 0; i < b->ncalls; i++) {
		const struct batch_wire_call *call = &b->calls[i];

		if (call->nr == SYS_rt_sigqueueinfo && call->args[1] - 1 < 64)
			named |= SIGNAL_BIT(call->args[1]);
		if (call->nr == SYS_rt_tgsigqueueinfo && call->args[2] - 1 < 64)
			named |= SIGNAL_BIT(call->args[2]);
	}
	return named;
}

static int choose_signal(pid_t tid, const struct batch *b, uint64_t *ret, struct error *e)
{
	uint64_t pending;
	int r = agent_pending(tid, &pending, e);

	if (r < 0)
		return r;
	pending |= named_signals(b);
	for (size_t i = 0; i < sizeof(stop_signals) / sizeof(*stop_signals); i++) {
		if (!(pending & SIGNAL_BIT(stop_signals[i]))) {
			*ret = (uint64_t)stop_signals[i];
			return 0;
		}
	}
	return error_set(e, -EBUSY, E_REMOTE,
			 "task %d has every signal pending that could end a list of system calls",
			 tid);
}

/* Runs until the agent has raised its signal, which is taken off again when the task is resumed. */
static int run_to_end(const struct agent *a, pid_t tid, int signal, struct error *e)
{
	struct user_regs_struct regs;
	struct trace_stop stop;
	int r = trace_cont(tid, 0, e);

	for (;;) {
		if (r < 0)
			return r;
		r = trace_wait(tid, &stop, -1, e);
		if (r < 0)
			return r;
		switch (stop.kind) {
		case TRACE_EXITED:
			return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", tid);
		case TRACE_SIGNAL:
			if (stop.signal == SIGSTOP) {
				/* The one that nobody can block: it takes effect in the end. */
				r = trace_cont(tid, SIGSTOP, e);
				continue;
			}
			r = trace_get_regs(tid, &regs, e);
			if (r < 0)
				return r;
			if (stop.signal == signal && arch_ip(&regs) == agent_raised_at(a))
				return 0;
			return error_set(e, -EINTR, E_REMOTE,
					 "task %d took signal %d while it executed system calls",
					 tid, stop.signal);
		default:
			r = trace_cont(tid, 0, e);
		}
	}
}

/* Sets the registers to the beginning of the agent. The task may be at its very first stop. */
static int set_entry(const struct agent *a, pid_t tid, struct error *e)
{
	struct user_regs_struct regs;
	int r = trace_get_regs(tid, &regs, e);

	if (r < 0)
		return r;
	arch_set_run(&regs, a->mapping);
	return trace_set_regs(tid, &regs, e);
}

int captive_run(struct agent *a, pid_t tid, struct batch *b, struct error *e)
{
	struct agent_header h = {};
	uint64_t mask;
	int r;

	r = batch_prepare(b, agent_data_at(a, b), e);
	if (r < 0)
		return r;
	r = choose_signal(tid, b, &h.signal, e);
	if (r < 0)
		return r;
	r = agent_load(a, tid, b, &h, e);
	if (r < 0)
		return r;
	r = set_entry(a, tid, e);
	if (r < 0)
		return r;
	r = trace_get_sigmask(tid, &mask, e);
	if (r < 0)
		return r;
	if (mask != ~SIGNAL_BIT(h.signal)) {
		r = trace_set_sigmask(tid, ~SIGNAL_BIT(h.signal), e);
		if (r < 0)
			return r;
	}
	r = run_to_end(a, tid, (int)h.signal, e);
	if (r < 0)
		return r;
	if (mask != ~SIGNAL_BIT(h.signal)) {
		r = trace_set_sigmask(tid, mask, e);
		if (r < 0)
			return r;
	}
	return agent_unload(a, tid, b, e);
}

/* Executes one call at the agent's own `syscall` and stops as soon as it is done. */
int captive_call(const struct agent *a, pid_t tid, long nr, const uint64_t args[6], long *ret,
		 struct error *e)
{
	struct user_regs_struct regs;
	struct trace_stop stop;
	int stops = 0;
	int r = trace_get_regs(tid, &regs, e);

	if (r < 0)
		return r;
	arch_set_call(&regs, a->mapping + (uint64_t)(arch_agent_syscall - arch_agent_code),
		      arch_sp(&regs), nr, args);
	r = trace_set_regs(tid, &regs, e);
	while (r == 0 && stops < 2) {
		r = trace_syscall(tid, 0, e);
		if (r == 0)
			r = trace_wait(tid, &stop, -1, e);
		if (r < 0)
			return r;
		if (stop.kind == TRACE_EXITED)
			return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", tid);
		if (stop.kind == TRACE_SIGNAL)
			return error_set(e, -EINTR, E_REMOTE,
					 "task %d took signal %d while it executed a system call",
					 tid, stop.signal);
		stops += stop.kind == TRACE_SYSCALL;
	}
	if (r == 0)
		r = trace_get_regs(tid, &regs, e);
	if (r == 0)
		*ret = arch_call_result(&regs);
	return r;
}

/*
 * The call finds a signal pending before it can sleep: our own trap. So it sets
 * up its restart block, with the time-out as a point in time, and returns at once.
 */
int agent_begin_sleep(struct agent *a, pid_t tid, long nr, uint64_t args[6], int timespec_arg,
		      const struct timespec *ts, bool is_narrow, bool *asleep, struct error *e)
{
	uint64_t at = a->mapping + AGENT_SIZE - sizeof(*ts);
	uint64_t compat_at = a->mapping + (uint64_t)(arch_agent_compat_syscall - arch_agent_code);
	const int32_t narrow[2] = {(int32_t)ts->tv_sec, (int32_t)ts->tv_nsec};
	struct user_regs_struct regs;
	struct trace_stop stop;
	int r = trace_get_regs(tid, &regs, e);

	if (r == 0 && timespec_arg >= 0) {
		args[timespec_arg] = at;
		r = is_narrow ? mem_write(tid, at, narrow, sizeof(narrow), e)
			      : mem_write(tid, at, ts, sizeof(*ts), e);
	}
	if (r == 0)
		r = trace_set_sigmask(tid, ~0ULL, e);
	if (r < 0)
		return r;
	if (nr >= ARCH_COMPAT)
		arch_set_compat_call(&regs, compat_at, arch_sp(&regs), nr, args);
	else
		arch_set_call(&regs, a->mapping + (uint64_t)(arch_agent_syscall - arch_agent_code),
			      arch_sp(&regs), nr, args);
	r = trace_set_regs(tid, &regs, e);
	if (r == 0)
		r = trace_syscall(tid, 0, e);
	if (r == 0)
		r = trace_wait(tid, &stop, -1, e);
	if (r == 0 && stop.kind != TRACE_SYSCALL)
		r = error_set(e, -EINTR, E_REMOTE, "task %d did not come to a system call", tid);
	if (r == 0)
		r = trace_interrupt(tid, e);
	if (r == 0)
		r = trace_cont(tid, 0, e);
	if (r == 0)
		r = trace_wait(tid, &stop, -1, e);
	if (r == 0)
		r = trace_get_regs(tid, &regs, e);
	*asleep = r == 0 && arch_call_result(&regs) == -ARCH_ERESTART_RESTARTBLOCK;
	return r;
}

/* To the stop after the child is made (kernel_clone()), or to the end of a call that has failed. */
static int run_to_child(pid_t tid, struct trace_stop *stop, struct error *e)
{
	int r = 0;

	for (int stops = 0; r == 0 && stops < 2; stops += stop->kind == TRACE_SYSCALL) {
		r = trace_syscall(tid, 0, e);
		if (r == 0)
			r = trace_wait(tid, stop, -1, e);
		if (r == 0 && stop->kind == TRACE_EVENT && stop->event == PTRACE_EVENT_VFORK)
			return 0;
		if (r == 0 && stop->kind == TRACE_EXITED)
			r = error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", tid);
	}
	return r;
}

int agent_vfork(struct agent *a, pid_t tid, const struct clone_args *args, pid_t set_tid,
		unsigned long options, pid_t *child, struct error *e)
{
	struct {
		struct clone_args args;
		pid_t tid;
	} data = {*args, set_tid};
	uint64_t at = a->mapping + AGENT_SIZE - sizeof(data);
	const uint64_t call[6] = {at, sizeof(data.args)};
	struct user_regs_struct regs;
	struct trace_stop stop = {};
	int r = trace_get_regs(tid, &regs, e);

	data.args.set_tid = set_tid ? at + offsetof(__typeof__(data), tid) : 0;
	data.args.set_tid_size = set_tid ? 1 : 0;
	if (r == 0)
		r = mem_write(tid, at, &data, sizeof(data), e);
	if (r == 0)
		r = trace_set_options(tid, options | PTRACE_O_TRACEVFORK, e);
	if (r == 0)
		r = trace_set_sigmask(tid, ~0ULL, e);
	if (r < 0)
		return r;
	arch_set_call(&regs, a->mapping + (uint64_t)(arch_agent_syscall - arch_agent_code),
		      arch_sp(&regs), SYS_clone3, call);
	r = trace_set_regs(tid, &regs, e);
	if (r == 0)
		r = run_to_child(tid, &stop, e);
	if (r == 0 && stop.kind != TRACE_EVENT) {
		r = trace_get_regs(tid, &regs, e);
		return r < 0 ? r : (int)arch_call_result(&regs);
	}
	*child = (pid_t)stop.message;
	return r;
}

int agent_vfork_undo(pid_t tid, pid_t child, struct error *e)
{
	struct trace_stop stop = {};
	int r;

	if (kill(child, SIGKILL) < 0)
		return error_errno(e, -errno, E_REMOTE, "cannot end task %d", child);
	do
		r = trace_wait(child, &stop, -1, e);
	while (r == 0 && stop.kind != TRACE_EXITED);
	/* To the end of the call, where it waits for nobody any more. */
	if (r == 0)
		r = trace_syscall(tid, 0, e);
	if (r == 0)
		r = trace_wait(tid, &stop, -1, e);
	if (r == 0 && stop.kind != TRACE_SYSCALL)
		r = error_set(e, -EINTR, E_REMOTE, "task %d did not end a system call", tid);
	return r;
}

/*
 * The call is the agent's own: when it returns the instruction after it is gone,
 * but the task stops before it comes to execute one, and is never resumed
 * there.
 */
int agent_unmap(struct agent *a, pid_t tid, struct error *e)
{
	const uint64_t args[6] = {a->mapping, AGENT_SIZE};
	uint64_t mask;
	struct trace_stop stop = {.kind = TRACE_SYSCALL};
	long result = 0;
	int r;

	r = trace_get_sigmask(tid, &mask, e);
	if (r < 0)
		return r;
	r = trace_set_sigmask(tid, ~0ULL, e);
	if (r < 0)
		return r;
	r = captive_call(a, tid, SYS_munmap, args, &result, e);
	if (r < 0)
		return r;
	if (result < 0)
		return error_errno(e, (int)result, E_REMOTE,
				   "cannot remove what ran system calls in task %d", tid);
	a->mapping = 0;
	r = trace_settle(tid, &stop, -1, e);
	return r < 0 ? r : trace_set_sigmask(tid, mask, e);
}

/* A signal without a handler, unblocked, sent to the process itself. */
static void end_by_signal(struct batch *b, int sig, bool core)
{
	uint32_t action = batch_data(b, NULL, 32), set = batch_data(b, NULL, 8);
	uint64_t mask = ~SIGNAL_BIT(sig);
	int pid;

	if (batch_at(b, set))
		memcpy(batch_at(b, set), &mask, sizeof(mask));
	batch_call(b, SYS_prctl, VAL(PR_SET_DUMPABLE), VAL(core));
	batch_call(b, SYS_rt_sigaction, VAL(sig), DATA(action), VAL(0), VAL(8));
	pid = batch_call(b, SYS_getpid);
	batch_call(b, SYS_kill, RESULT(pid), VAL(sig));
	batch_call(b, SYS_rt_sigprocmask, VAL(SIG_SETMASK), DATA(set), VAL(0), VAL(8));
}

int agent_exit(struct agent *a, pid_t tid, int status, int sig, enum agent_end how, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	struct agent_header h = {};
	int r;

	if (sig)
		end_by_signal(&b, sig, how == AGENT_END_CORE);
	else
		batch_call(&b, how == AGENT_END_THREAD ? SYS_exit : SYS_exit_group, VAL(status));
	r = batch_prepare(&b, agent_data_at(a, &b), e);
	if (r < 0)
		return r;
	r = agent_load(a, tid, &b, &h, e);
	if (r < 0)
		return r;
	r = set_entry(a, tid, e);
	/* Nothing else may come in between. */
	return r < 0 ? r : trace_set_sigmask(tid, ~0ULL, e);
}
