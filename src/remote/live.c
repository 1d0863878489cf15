/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/ptrace.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "remote/agent.h"
#include "remote/maps.h"

/*
 * Borrowing a task that is to go on running. At every instant it is in a state
 * from which, if we are killed, it goes on by itself where it was:
 *
 *  - What it does on our behalf begins at a `syscall; ret` of its own text, or in the
 *    agent, which in the end jumps there. The return goes to an rt_sigreturn,
 *    also of its own text, with the stack pointer at a signal frame that holds all of the
 *    task's own state.
 *  - The frame is complete before the registers lead to it. The registers
 *    lead to it before the signal mask is changed, since the frame is what brings the
 *    mask back; when giving back the mask comes first.
 *  - The system calls do nothing that the application could notice.
 *  - Stops are those of system calls and signals only. A single-step trap that
 *    nobody catches any more would kill the task.
 *
 * The frame holds the state with which the task would go on if it were resumed:
 * a system call that was interrupted is issued again. There is no restart block
 * after an rt_sigreturn, so that a sleep may take longer; it does not fail with EINTR.
 */

#define STOP_TIMEOUT_MS 10000
#define DATA_ROOM	2048 /* that a slot offers at least where no mapping can be made */

/* Generating these does more than to queue them. */
#define JOB_SIGNALS                                                                              \
	(SIGNAL_BIT(SIGKILL) | SIGNAL_BIT(SIGSTOP) | SIGNAL_BIT(SIGTSTP) | SIGNAL_BIT(SIGTTIN) | \
	 SIGNAL_BIT(SIGTTOU) | SIGNAL_BIT(SIGCONT))
#define STANDARD_SIGNALS   0x7fffffffULL
#define IGNORED_BY_DEFAULT (SIGNAL_BIT(SIGURG) | SIGNAL_BIT(SIGWINCH) | SIGNAL_BIT(SIGCHLD))

/* A thread while it is borrowed. */
struct borrowed {
	struct agent *a;
	pid_t tid;
	const struct cpu_state *saved;
	bool filtered; /* by seccomp */
	uint64_t mask; /* while it is borrowed */
	bool entered;  /* registers or mask are not its own */
	struct trace_stop stop;
};

static int is_gone(struct error *e, pid_t tid)
{
	return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", tid);
}

/* The registers with which the task goes on from the frame. */
static struct user_regs_struct frame_regs(const struct cpu_state *saved)
{
	struct user_regs_struct regs = saved->regs;
	long nr = arch_call_nr(&regs), result = arch_call_result(&regs);

	if (nr < 0 || (result != -ARCH_ERESTARTSYS && result != -ARCH_ERESTARTNOINTR &&
		       result != -ARCH_ERESTARTNOHAND && result != -ARCH_ERESTART_RESTARTBLOCK))
		return regs;
	if (nr == arch_restart_syscall_nr() && saved->restarted_nr >= 0)
		nr = saved->restarted_nr;
	arch_reissue(&regs, nr);
	return regs;
}

static size_t frame_size(const struct cpu_state *saved)
{
	return arch_frame_size(saved->xstate_len);
}

static int write_frame(struct borrowed *b, struct error *e)
{
	struct slot *slot = &b->a->slot;
	size_t size = frame_size(b->saved);
	struct user_regs_struct regs = frame_regs(b->saved);
	_cleanup_(free_ptr) uint8_t *buf = NULL;

	if (slot->at + size > slot->end)
		return error_set(e, -ENOSPC, E_REMOTE,
				 "no room for the state of task %d on its stack", b->tid);
	buf = malloc(size);
	if (!buf)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot keep the state of task %d",
				 b->tid);
	arch_frame_build(buf, size, slot->at, b->a->gadgets.sigreturn, &regs, b->saved->sigmask,
			 b->saved->xstate, b->saved->xstate_len);
	if (slot->used < size)
		slot->used = size;
	return mem_write(b->tid, slot->at, buf, size, e);
}

/*
 * seccomp filters may forbid what we inject, and kill for it. With our death they
 * are in force again: such a thread makes one call at a time, never a whole batch by itself.
 */
static int lift_filters(struct borrowed *b, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	uint64_t mode = 0;

	if (b->tid == b->a->tid) {
		mode = b->a->seccomp;
	} else {
		ssize_t len = procfs_read(b->a->proc_fd, &status, e, "%d/status", b->tid);

		if (len < 0)
			return (int)len;
		ignore(proc_field_u64(status, "Seccomp", 10, &mode),
		       "absent without CONFIG_SECCOMP");
	}
	if (!mode) {
		b->a->unfiltered = b->tid;
		return 0;
	}
	b->filtered = true;
	if (trace_set_options(b->tid, PTRACE_O_SUSPEND_SECCOMP, NULL) < 0)
		return error_set(e, -EPERM, E_TASK_SECCOMP,
				 "task %d has seccomp filters, which only root may suspend",
				 b->tid);
	return 0;
}

/* Prepares everything that does not change the course of the task yet. */
static int begin(struct borrowed *b, struct error *e)
{
	struct ptrace_sud_config dispatch;
	int r;

	/* it has not run since, but for our calls */
	if (b->a->unfiltered == b->tid)
		return write_frame(b, e);
	r = trace_get_dispatch(b->tid, &dispatch, e);
	if (r < 0)
		return r;
	if (dispatch.mode)
		return error_set(
			e, -ENOTSUP, E_TASK_STATE,
			"task %d has its system calls dispatched to itself (PR_SET_SYSCALL_USER_DISPATCH)",
			b->tid);
	r = lift_filters(b, e);
	return r < 0 ? r : write_frame(b, e);
}

/* The point at which the course of the task changes. The frame has been written by now. */
static int divert(struct borrowed *b, const struct user_regs_struct *regs, uint64_t mask,
		  struct error *e)
{
	int r;

	b->entered = true;
	r = trace_set_regs(b->tid, regs, e);
	if (r < 0 || b->mask == mask)
		return r;
	b->mask = mask;
	return trace_set_sigmask(b->tid, mask, e);
}

/* Back to where it was, ready to be let go. */
static int end(struct borrowed *b, struct error *e)
{
	int r = 0;

	if (!b->entered)
		return 0;
	/*
	 * Only when a task leaves a signal-type stop does the kernel look whether
	 * a system call has to be restarted: with its registers back in a stop at
	 * the end of a system call the application would see "errno 516".
	 */
	if (b->stop.kind == TRACE_SYSCALL)
		r = trace_settle(b->tid, &b->stop, STOP_TIMEOUT_MS, e);
	if (r == -ETIMEDOUT)
		r = error_set(e, r, E_REMOTE, "task %d does not stop any more", b->tid);
	if (r == 0)
		r = trace_set_sigmask(b->tid, b->saved->sigmask, e);
	if (r == 0)
		r = trace_set_regs(b->tid, &b->saved->regs, e);
	b->entered = r < 0;
	return r;
}

/*
 * A signal that got through. Returns the one to deliver now, 0 for none, or an error:
 * a fault of what runs on our behalf.
 */
static int pass_signal(struct borrowed *b, int signal, struct error *e)
{
	siginfo_t info;
	int r;

	if (!(SIGNAL_BIT(signal) & FAULT_SIGNALS))
		return signal; /* it stops the process, or is ignored */
	r = trace_get_siginfo(b->tid, &info, e);
	if (r < 0)
		return r;
	if (info.si_code > 0)
		return error_set(e, -EFAULT, E_REMOTE, "signal %d in what task %d ran for reprise",
				 signal, b->tid);
	/* Somebody sent it. Delivered while it is blocked it goes back into its queue. */
	b->mask |= SIGNAL_BIT(signal);
	r = trace_set_sigmask(b->tid, b->mask, e);
	return r < 0 ? r : signal;
}

/* Waits for the wanted kind of stop, resuming by `resume` from others. */
static int run_until(struct borrowed *b, enum trace_stop_kind kind, int signal, uint64_t ip,
		     int (*resume)(pid_t, int, struct error *), struct error *e)
{
	struct user_regs_struct regs;
	int pass = 0;

	for (;;) {
		int r = resume(b->tid, pass, e);

		if (r == 0)
			r = trace_wait(b->tid, &b->stop, STOP_TIMEOUT_MS, e);
		if (r == -ETIMEDOUT)
			return error_set(
				e, r, E_REMOTE,
				"task %d did not finish a system call in %d ms (is it frozen?)",
				b->tid, STOP_TIMEOUT_MS);
		if (r < 0)
			return r;
		pass = 0;
		if (b->stop.kind == TRACE_EXITED)
			return is_gone(e, b->tid);
		if (b->stop.kind == kind && kind != TRACE_SIGNAL)
			return 0;
		if (b->stop.kind != TRACE_SIGNAL)
			continue;
		if (kind == TRACE_SIGNAL && b->stop.signal == signal) {
			r = trace_get_regs(b->tid, &regs, e);
			if (r < 0 || arch_ip(&regs) == ip)
				return r;
		}
		pass = pass_signal(b, b->stop.signal, e);
		if (pass < 0)
			return pass;
	}
}

/* One call at the program's own `syscall; ret`; the task stops at its end. */
static int single(struct borrowed *b, long nr, const uint64_t args[6], long *ret, struct error *e)
{
	struct user_regs_struct regs = b->saved->regs;
	int r;

	arch_set_call(&regs, b->a->gadgets.syscall_ret, b->a->slot.at, nr, args);
	/* One that the application blocks may be pending. */
	r = divert(b, &regs, ~(FAULT_SIGNALS & ~b->saved->sigmask), e);
	for (int stops = 0; r == 0 && stops < 2; stops++)
		r = run_until(b, TRACE_SYSCALL, 0, 0, trace_syscall, e);
	if (r == 0)
		r = trace_get_regs(b->tid, &regs, e);
	if (r == 0)
		*ret = arch_call_result(&regs);
	return r;
}

/* Both errors count: the one that happened, else that of giving back. */
static int finish(struct borrowed *b, int r, struct error *e)
{
	int given_back = end(b, r < 0 ? NULL : e);

	if (r == 0 && given_back == 0) {
		b->a->last_tid = b->tid;
		b->a->last_saved = b->saved;
	}
	return r < 0 ? r : given_back;
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
		r = single(b, (long)call->nr, args, &result, e);
		if (r < 0)
			break;
		call->result = result;
		if (call->must && result < 0 && result >= -4095)
			break;
	}
	return r < 0 ? r : mem_read(b->tid, data_at, batch->data, batch->data_len, e);
}

/* Without a mapping the data stand behind the frame. */
static int slot_data(struct borrowed *b, const struct batch *batch, uint64_t *ret, struct error *e)
{
	struct slot *slot = &b->a->slot;
	uint64_t at = slot->at + frame_size(b->saved);

	if (at + batch->data_len > slot->end)
		return error_set(e, -ENOSPC, E_REMOTE,
				 "task %d has no room for %u bytes (its limits allow no mapping)",
				 b->tid, batch->data_len);
	if (slot->used < at + batch->data_len - slot->at)
		slot->used = at + batch->data_len - slot->at;
	*ret = at;
	return 0;
}

/*
 * The signal that ends a batch: one that the process ignores, so that it does nothing
 * when there is no tracer any more, and that this thread neither blocks (it might
 * wait for it in other ways) nor has pending. 0: none.
 */
static int choose_signal(const struct borrowed *b, uint64_t pending)
{
	uint64_t can = b->a->ignorable & ~pending & ~b->saved->sigmask;

	if (can & SIGNAL_BIT(SIGURG))
		return SIGURG;
	return can ? __builtin_ctzll(can) + 1 : 0;
}

static int run_by_agent(struct borrowed *b, struct batch *batch, int signal, uint64_t pending,
			struct error *e)
{
	struct agent *a = b->a;
	struct user_regs_struct regs = b->saved->regs;
	struct agent_header h = {
		.signal = (uint64_t)signal,
		.tail_ip = a->gadgets.syscall_ret,
		.tail_sp = a->slot.at,
		.unmap_at = a->mapping,
		.unmap_len = AGENT_SIZE,
	};
	int r = agent_load(a, b->tid, batch, &h, e);

	if (r < 0)
		return r;
	arch_set_run(&regs, a->mapping);
	r = divert(b, &regs, ~(SIGNAL_BIT(signal) | (FAULT_SIGNALS & ~pending)), e);
	if (r == 0)
		r = run_until(b, TRACE_SIGNAL, signal, agent_raised_at(a), trace_cont, e);
	return r < 0 ? r : agent_unload(a, b->tid, batch, e);
}

int live_run(struct agent *a, pid_t tid, const struct cpu_state *saved, struct batch *batch,
	     struct error *e)
{
	struct borrowed b = {.a = a, .tid = tid, .saved = saved, .mask = saved->sigmask};
	uint64_t data_at = agent_data_at(a, batch), pending;
	int r = begin(&b, e), signal;

	if (r == 0)
		r = agent_pending(tid, &pending, e);
	if (r == 0 && !a->mapping)
		r = slot_data(&b, batch, &data_at, e);
	if (r == 0)
		r = batch_prepare(batch, data_at, e);
	if (r < 0)
		return r;
	signal = choose_signal(&b, pending);
	if (a->mapping && !b.filtered && signal)
		r = run_by_agent(&b, batch, signal, pending, e);
	else
		r = run_singly(&b, batch, data_at, e);
	return finish(&b, r, e);
}

long live_syscall(struct agent *a, pid_t tid, const struct cpu_state *saved, struct error *e,
		  long nr, const uint64_t args[6])
{
	struct borrowed b = {.a = a, .tid = tid, .saved = saved, .mask = saved->sigmask};
	long result = 0;
	int r = begin(&b, e);

	if (r == 0)
		r = single(&b, nr, args, &result, e);
	r = finish(&b, r, e);
	return r < 0 ? r : result;
}

static bool is_error(long result)
{
	return result < 0 && result >= -4095;
}

static int write_code(struct agent *a, pid_t tid, uint64_t at, struct error *e)
{
	return mem_write(tid, at, arch_agent_code, (size_t)(arch_agent_code_end - arch_agent_code),
			 e);
}

/*
 * Memory for the agent. Where there can be none (RLIMIT_AS, a policy against
 * code that is written at run time) calls are made one by one.
 */
static int map_agent(struct agent *a, struct error *e)
{
	struct borrowed b = {.a = a, .tid = a->tid, .saved = a->saved, .mask = a->saved->sigmask};
	const uint64_t args[6] = {0,
				  AGENT_SIZE,
				  PROT_READ | PROT_WRITE | PROT_EXEC,
				  MAP_PRIVATE | MAP_ANONYMOUS,
				  (uint64_t)-1,
				  0};
	long at = 0;
	int r = begin(&b, e);

	if (r == 0)
		r = single(&b, SYS_mmap, args, &at, e);
	if (r == 0 && !is_error(at)) {
		a->mapping = (uint64_t)at;
		r = write_code(a, b.tid, a->mapping, e);
	}
	return finish(&b, r, e);
}

static int read_process(struct agent *a, struct error *e)
{
	_cleanup_(free_ptr) char *status = NULL;
	ssize_t len = procfs_read(a->proc_fd, &status, e, "%d/status", a->tid);
	uint64_t caught, ignored;
	const char *features;
	size_t n;

	if (len < 0)
		return (int)len;
	if (proc_field_u64(status, "SigIgn", 16, &ignored) ||
	    proc_field_u64(status, "SigCgt", 16, &caught))
		return error_set(e, -EINVAL, E_INTERNAL, "/proc/%d/status is not understood",
				 a->tid);
	ignore(proc_field_u64(status, "Seccomp", 10, &a->seccomp), "absent without CONFIG_SECCOMP");
	a->ignorable = (ignored | IGNORED_BY_DEFAULT) & ~caught & STANDARD_SIGNALS & ~JOB_SIGNALS &
		       ~FAULT_SIGNALS;
	/* Our return addresses are not on the shadow stack. */
	features = proc_field(status, "x86_Thread_features", &n);
	if (features && memmem(features, n, "shstk", 5))
		return error_set(e, -ENOTSUP, E_TASK_STATE, "task %d has a shadow stack", a->tid);
	return 0;
}

static int find_gadgets(struct agent *a, struct maps *maps, struct agent_found *found,
			struct error *e)
{
	struct arch_gadgets likely = {};
	int r;

	if (found)
		likely = (struct arch_gadgets){found->syscall_ret, found->sigreturn};
	r = text_find_gadgets(a->proc_fd, a->tid, maps, &likely, &a->gadgets, &a->patched, e);
	if (r == 0 && found && !a->patched)
		*found = (struct agent_found){a->gadgets.syscall_ret, a->gadgets.sigreturn};
	return r;
}

static int prepare(struct agent *a, struct agent_found *found, struct error *e)
{
	_cleanup_(maps_free) struct maps maps = {};
	uint64_t sp = arch_sp(&a->saved->regs) - arch_red_zone();
	int r = maps_read(a->proc_fd, a->tid, sp, &maps, e);

	if (r == 0)
		r = read_process(a, e);
	if (r == 0)
		r = slot_find(a->proc_fd, a->tid, sp, &maps, frame_size(a->saved) + DATA_ROOM,
			      &a->slot, e);
	if (r == 0)
		r = find_gadgets(a, &maps, found, e);
	return r;
}

int agent_borrow(struct agent **ret, int proc_fd, pid_t tid, const struct cpu_state *saved,
		 struct agent_found *found, struct error *e)
{
	struct agent *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot make an agent");
	a->live = true;
	a->proc_fd = proc_fd;
	a->tid = a->last_tid = tid;
	a->saved = a->last_saved = saved;
	r = prepare(a, found, e);
	if (r == 0)
		r = map_agent(a, e);
	if (r < 0) {
		ignore(agent_return(a, NULL), "the first error counts");
		return r;
	}
	*ret = a;
	return 0;
}

static int unmap_agent(struct agent *a, struct error *e)
{
	const uint64_t args[6] = {a->mapping, AGENT_SIZE};
	long result;

	if (!a->mapping)
		return 0;
	result = live_syscall(a, a->tid, a->saved, e, SYS_munmap, args);
	if (result == -ESRCH && a->last_tid != a->tid) {
		error_clear(e);
		result = live_syscall(a, a->last_tid, a->last_saved, e, SYS_munmap, args);
	}
	if (result == -ESRCH)
		return -ESRCH;
	if (result < 0)
		return error_errno(e, (int)result, E_REMOTE,
				   "cannot remove what ran system calls in task %d", a->tid);
	a->mapping = 0;
	return 0;
}

int live_return(struct agent *a, struct error *e)
{
	int r = unmap_agent(a, e);

	if (r == 0 && a->slot.used)
		r = slot_clear(&a->slot, a->last_tid, e);
	if (r == 0)
		text_unpatch(a->proc_fd, a->last_tid, a->patched);
	if (r == -ESRCH) {
		error_clear(e); /* there is nothing to give back to */
		r = 0;
	}
	slot_free(&a->slot);
	return r;
}
