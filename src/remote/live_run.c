/* SPDX-License-Identifier: Apache-2.0 */
/* What runs in a borrowed task: one call after the other, or a batch by the agent. */
#include <errno.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "remote/live_private.h"

static int is_gone(struct error *e, pid_t tid)
{
	return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", tid);
}

/*
 * A signal that got through. Returns the one to deliver now, 0 for none, or an error:
 * a fault of what runs on our behalf.
 */
static int pass_signal(struct borrowed *b, int signal, struct error *e)
{
	siginfo_t info;
	int r;

	if (!(SIGNAL_BIT(signal) & FAULT_SIGNALS) && signal != b->lent)
		return signal; /* it stops the process, or is ignored */
	r = trace_get_siginfo(b->tid, &info, e);
	if (r < 0)
		return r;
	if (signal == b->lent) {
		b->guest = info;
		return 0;
	}
	if (info.si_code > 0)
		return error_set(e, -EFAULT, E_REMOTE, "signal %d in what task %d ran for reprise",
				 signal, b->tid);
	/* Somebody sent it. Delivered while it is blocked it goes back into its queue. */
	b->mask |= SIGNAL_BIT(signal);
	r = trace_set_sigmask(b->tid, b->mask, e);
	return r < 0 ? r : signal;
}

/* Waits for the wanted kind of stop, resuming by `resume` from others. */
static int meet(struct borrowed *b, enum trace_stop_kind kind, int signal, uint64_t ip,
		int (*resume)(pid_t, int, struct error *), struct error *e)
{
	struct user_regs_struct regs;

	for (;;) {
		int pass = 0, r = trace_wait(b->tid, &b->stop, STOP_TIMEOUT_MS, e);

		if (r == -ETIMEDOUT)
			return error_set(
				e, r, E_REMOTE,
				"task %d did not finish a system call in %d ms (is it frozen?)",
				b->tid, STOP_TIMEOUT_MS);
		if (r < 0)
			return r;
		if (b->stop.kind == TRACE_EXITED)
			return is_gone(e, b->tid);
		if (b->stop.kind == kind && kind != TRACE_SIGNAL)
			return 0;
		if (b->stop.kind == TRACE_GROUP_STOP && kind == TRACE_EVENT_STOP)
			return 0; /* it serves as well, and would come again */
		if (b->stop.kind == TRACE_SIGNAL && kind == TRACE_SIGNAL &&
		    b->stop.signal == signal) {
			r = trace_get_regs(b->tid, &regs, e);
			if (r < 0 || arch_ip(&regs) == ip)
				return r;
		}
		if (b->stop.kind == TRACE_SIGNAL)
			pass = pass_signal(b, b->stop.signal, e);
		r = pass < 0 ? pass : resume(b->tid, pass, e);
		if (r < 0)
			return r;
	}
}

/* The same, and first it goes on with the signal `pass` from where it is. */
static int run_until(struct borrowed *b, enum trace_stop_kind kind, int signal, uint64_t ip,
		     int (*resume)(pid_t, int, struct error *), int pass, struct error *e)
{
	int r = resume(b->tid, pass, e);

	return r < 0 ? r : meet(b, kind, signal, ip, resume, e);
}

/* One call at the program's own `syscall; ret`; the task stops at its beginning. */
static int enter_single(struct borrowed *b, uint64_t back, long nr, const uint64_t args[6],
			struct error *e)
{
	struct user_regs_struct regs = b->saved->regs;
	int r;

	arch_set_call(&regs, b->a->gadgets.syscall_ret, back, nr, args);
	/* One that the application blocks may be pending. */
	r = live_divert(b, &regs, live_quiet_mask(b), e);
	return r < 0 ? r : run_until(b, TRACE_SYSCALL, 0, 0, trace_syscall, 0, e);
}

static int result_of(const struct borrowed *b, long *ret, struct error *e)
{
	struct user_regs_struct regs;
	int r = trace_get_regs(b->tid, &regs, e);

	if (r == 0)
		*ret = arch_call_result(&regs);
	return r;
}

/* The task stops at its end. */
int live_single(struct borrowed *b, uint64_t back, long nr, const uint64_t args[6], long *ret,
		struct error *e)
{
	int r = enter_single(b, back, nr, args, e);

	if (r == 0)
		r = run_until(b, TRACE_SYSCALL, 0, 0, trace_syscall, 0, e);
	return r < 0 ? r : result_of(b, ret, e);
}

/*
 * The signal by which one on an errand says that it has come to its end: one that the process
 * ignores, and the thread does not block.
 */
static int errand_signal(const struct borrowed *b)
{
	uint64_t can = b->a->ignorable & ~b->saved->sigmask;

	return can & SIGNAL_BIT(SIGURG) ? SIGURG : can ? __builtin_ctzll(can) + 1 : 0;
}

/*
 * Behind the call comes a return from a signal: no sleep could be restarted any more as the kernel
 * has noted it (rt_sigreturn() forgets the restart block).
 */
static bool sleeps_by_note(const struct borrowed *b)
{
	const struct user_regs_struct *regs = &b->saved->regs;

	return arch_call_nr(regs) >= 0 && arch_call_result(regs) == -ARCH_ERESTART_RESTARTBLOCK;
}

bool live_can_post(const struct borrowed *b)
{
	return b->a->leave && !sleeps_by_note(b) && b->a->own_pid && !b->filtered && !b->own.kept &&
	       errand_signal(b);
}

/*
 * kill(2) names the process alone; of its threads this one runs, so that it takes the signal
 * (complete_signal()). Whether the signal is ignored is decided by the first thread, which we trace
 * (sig_ignored()). One of that number that comes from elsewhere before the call is passed on,
 * and is ignored; one that comes right behind it serves as well.
 */
int live_post(struct borrowed *b, uint64_t back, long nr, const uint64_t args[6], struct error *e)
{
	struct agent *a = b->a;
	struct user_regs_struct regs = b->saved->regs;
	int signal = errand_signal(b), r;
	const uint64_t end[6] = {(uint64_t)a->own_pid, (uint64_t)signal};
	uint64_t mask = live_quiet_mask(b) & ~SIGNAL_BIT(signal);
	uint8_t buf[ARCH_CALL_FRAME];

	arch_call_frame_build(buf, &a->gadgets, back, mask, &regs, live_frame_at(b), SYS_kill, end);
	live_use_slot(&a->slot, a->leave + LEAVE_ALIGN);
	r = mem_write(b->tid, live_errand_at(a), buf, sizeof(buf), e);
	arch_set_call(&regs, a->gadgets.syscall_ret, live_errand_at(a), nr, args);
	if (r == 0)
		r = live_divert(b, &regs, mask, e);
	return r < 0 ? r : trace_cont(b->tid, 0, e);
}

int live_meet(struct borrowed *b, struct error *e)
{
	return meet(b, TRACE_SIGNAL, errand_signal(b), arch_call_end(&b->a->gadgets), trace_cont,
		    e);
}

static uint64_t argument(const struct batch *batch, const struct batch_wire_call *call,
			 unsigned int i, uint64_t data_at)
{
	if (call->kinds[i] == WIRE_KIND_DATA)
		return data_at + call->args[i];
	if (call->kinds[i] == WIRE_KIND_RESULT)
		return (uint64_t)batch->calls[call->args[i]].result;
	return call->args[i];
}

/* Call by call, driven from here. */
static int run_singly(struct borrowed *b, struct batch *batch, uint64_t data_at, struct error *e)
{
	int r = mem_write(b->tid, data_at, batch->data, batch->data_len, e);

	for (uint32_t i = 0; r == 0 && i < batch->ncalls; i++) {
		struct batch_wire_call *call = &batch->calls[i];
		uint64_t args[6];
		long result = 0;

		for (unsigned int j = 0; j < 6; j++)
			args[j] = argument(batch, call, j, data_at);
		r = live_single(b, live_back(b), (long)call->nr, args, &result, e);
		if (r < 0)
			break;
		call->result = result;
		if (call->must && result < 0 && result >= -4095)
			break;
	}
	return r < 0 ? r : mem_read(b->tid, data_at, batch->data, batch->data_len, e);
}

/* Without a mapping the data stand behind the frame: no other thread has any. */
static int slot_data(struct borrowed *b, const struct batch *batch, uint64_t *ret, struct error *e)
{
	struct slot *slot = b->own.kept ? &b->own : &b->a->slot;
	uint64_t at = live_frame_at(b) + live_frame_size(b->a);

	if (at + batch->data_len > slot->end)
		return error_set(e, -ENOSPC, E_REMOTE,
				 "task %d has no room for %u bytes (its limits allow no mapping)",
				 b->tid, batch->data_len);
	live_use_slot(slot, at + batch->data_len);
	*ret = at;
	return 0;
}

/*
 * The signal that ends a batch: one that the process ignores, so that it does nothing
 * when there is no tracer any more, and that this thread does not have pending. 0: none. Of those
 * that it blocks one is lent, if there is no other: it might wait for it in other ways. Who blocks
 * what is ignored by default will often do so, so SIGURG only, or what is ignored by choice.
 */
static int choose_signal(struct borrowed *b, uint64_t pending)
{
	uint64_t can = b->a->ignorable & ~pending, own = can & ~b->saved->sigmask;

	if (own & SIGNAL_BIT(SIGURG))
		return SIGURG;
	if (own)
		return __builtin_ctzll(own) + 1;
	can &= ~(IGNORED_BY_DEFAULT & ~SIGNAL_BIT(SIGURG));
	b->lent = can & SIGNAL_BIT(SIGURG) ? SIGURG : can ? __builtin_ctzll(can) + 1 : 0;
	return b->lent;
}

/* The request stays pending while it goes on: see trace_settle(). */
static int go_to_rest(pid_t tid, int signal, struct error *e)
{
	int r = trace_interrupt(tid, e);

	return r < 0 ? r : trace_cont(tid, signal, e);
}

/*
 * A signal that was lent is taken off before the thread has its own mask again: blocked, it would
 * stay there if we were killed then. In another stop nothing is left of it (get_signal()). One that
 * somebody else sent in that short time is put back into the queue, as it is delivered while
 * blocked (ptrace_signal()); it is only lost with us, should we be killed before.
 */
static int give_back_signal(struct borrowed *b, struct error *e)
{
	int pass = b->guest.si_signo, r = 0;

	if (pass) {
		b->mask |= SIGNAL_BIT(pass);
		r = trace_set_siginfo(b->tid, &b->guest, e);
		if (r == 0)
			r = trace_set_sigmask(b->tid, b->mask, e);
	}
	b->guest.si_signo = b->lent = 0;
	return r < 0 ? r : run_until(b, TRACE_EVENT_STOP, 0, 0, go_to_rest, pass, e);
}

static void do_meanwhile(struct agent *a)
{
	void (*fn)(void *) = a->meanwhile;

	a->meanwhile = NULL;
	if (fn)
		fn(a->meanwhile_arg);
}

static int run_by_agent(struct borrowed *b, struct batch *batch, int signal, uint64_t pending,
			struct error *e)
{
	struct agent *a = b->a;
	struct user_regs_struct regs = b->saved->regs;
	struct agent_header h = {
		.signal = (uint64_t)signal,
		.tail_ip = a->gadgets.syscall_ret,
		.tail_sp = live_frame_at(b),
		.unmap_at = a->mapping,
		.unmap_len = AGENT_SIZE,
	};
	int r = agent_load(a, b->tid, batch, &h, e);

	if (r < 0)
		return r;
	arch_set_run(&regs, a->mapping);
	r = live_divert(b, &regs, ~(SIGNAL_BIT(signal) | (FAULT_SIGNALS & ~pending)), e);
	if (r == 0)
		r = trace_cont(b->tid, 0, e);
	if (r == 0)
		do_meanwhile(a);
	if (r == 0)
		r = meet(b, TRACE_SIGNAL, signal, agent_raised_at(a), trace_cont, e);
	if (r == 0 && b->lent)
		r = give_back_signal(b, e);
	return r < 0 ? r : agent_unload(a, b->tid, batch, e);
}

int live_run(struct agent *a, pid_t tid, const struct cpu_state *saved, struct batch *batch,
	     struct error *e)
{
	uint64_t data_at = agent_data_at(a, batch), pending;
	struct borrowed b;
	int r = live_begin(&b, a, tid, saved, e), signal;

	if (r < 0)
		return r;
	r = agent_pending(tid, &pending, e);
	if (r == 0 && !a->mapping)
		r = slot_data(&b, batch, &data_at, e);
	if (r == 0)
		r = batch_prepare(batch, data_at, e);
	if (r < 0)
		return live_finish(&b, r, e);
	signal = choose_signal(&b, pending);
	a->undo = 0;
	if (a->mapping && !b.filtered && signal)
		r = run_by_agent(&b, batch, signal, pending, e);
	else
		r = run_singly(&b, batch, data_at, e);
	return live_finish(&b, r, e);
}

long live_syscall(struct agent *a, pid_t tid, const struct cpu_state *saved, struct error *e,
		  long nr, const uint64_t args[6])
{
	struct borrowed b;
	long result = 0;
	int r = live_begin(&b, a, tid, saved, e);

	if (r < 0)
		return r;
	a->undo = 0;
	r = live_single(&b, live_back(&b), nr, args, &result, e);
	r = live_finish(&b, r, e);
	return r < 0 ? r : result;
}
