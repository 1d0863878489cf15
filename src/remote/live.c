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
#include "remote/live_private.h"

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
 *    mask back; when giving back the mask comes first. With its own mask at a frame a thread may
 *    run handlers, below that: it stands at the lowest place of all then (change_mask()).
 *  - While the agent is mapped, one thread, the keeper, stays where its next step is to unmap it.
 *    Its task passes from one to the next by one write to memory that both look at.
 *  - The system calls do nothing that the application could notice.
 *  - Stops are those of system calls and signals only. A single-step trap that
 *    nobody catches any more would kill the task.
 *
 * The frame holds the state with which the task would go on if it were resumed:
 * a system call that was interrupted is issued again. There is no restart block
 * after an rt_sigreturn, so that a sleep may take longer; it does not fail with EINTR.
 */

/* The registers with which the task goes on from the frame. */
static struct user_regs_struct frame_regs(const struct cpu_state *saved)
{
	struct user_regs_struct regs = saved->regs;
	long nr = arch_call_nr(&regs), result = arch_call_result(&regs);

	if (nr < 0 || (result != -ARCH_ERESTARTSYS && result != -ARCH_ERESTARTNOINTR &&
		       result != -ARCH_ERESTARTNOHAND && result != -ARCH_ERESTART_RESTARTBLOCK))
		return regs;
	if (arch_is_restart_syscall(nr) && saved->restarted_nr >= 0)
		nr = saved->restarted_nr;
	arch_reissue(&regs, nr);
	return regs;
}

size_t live_frame_size(const struct agent *a)
{
	return arch_frame_size(a->saved->xstate_len);
}

uint64_t live_frame_at(const struct borrowed *b)
{
	if (b->own.kept)
		return b->own.at;
	return b->a->slot.at + (b->a->leave ? 1 + b->side : 0) * live_frame_size(b->a);
}

/* The lowest place for a frame: only one thread at a time needs it, and for a moment. */
static uint64_t door_at(const struct borrowed *b)
{
	return b->own.kept ? b->own.at : b->a->slot.at;
}

void live_use_slot(struct slot *slot, uint64_t end)
{
	if (slot->used < end - slot->at)
		slot->used = end - slot->at;
}

static int write_frame(struct borrowed *b, uint64_t at, struct error *e)
{
	struct slot *slot = b->own.kept ? &b->own : &b->a->slot;
	size_t size = live_frame_size(b->a);
	struct user_regs_struct regs = frame_regs(b->saved);
	_cleanup_(free_ptr) uint8_t *buf = NULL;

	if (at + size > slot->end || b->saved->xstate_len > b->a->saved->xstate_len)
		return error_set(e, -ENOSPC, E_REMOTE,
				 "no room for the state of task %d on its stack", b->tid);
	buf = malloc(size);
	if (!buf)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "cannot keep the state of task %d",
				 b->tid);
	arch_frame_build(buf, size, at, b->a->gadgets.sigreturn, &regs, b->saved->sigmask,
			 b->saved->xstate, b->saved->xstate_len);
	live_use_slot(slot, at + size);
	return mem_write(b->tid, at, buf, size, e);
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
		return write_frame(b, live_frame_at(b), e);
	r = trace_get_dispatch(b->tid, &dispatch, e);
	if (r < 0)
		return r;
	if (dispatch.mode)
		return error_set(
			e, -ENOTSUP, E_TASK_STATE,
			"task %d has its system calls dispatched to itself (PR_SET_SYSCALL_USER_DISPATCH)",
			b->tid);
	r = lift_filters(b, e);
	return r < 0 ? r : write_frame(b, live_frame_at(b), e);
}

/*
 * From its own signal mask to ours, or back. Between registers and mask we may die, and handlers of
 * the application run: below the stack pointer, as deep as they like. So nothing that anybody needs
 * stands there.
 */
static int change_mask(struct borrowed *b, uint64_t mask, struct error *e)
{
	struct user_regs_struct regs = b->saved->regs;
	uint64_t at = door_at(b);
	int r = at == live_frame_at(b) ? 0 : write_frame(b, at, e);

	arch_set_return(&regs, b->a->gadgets.sigreturn, at);
	if (r == 0)
		r = trace_set_regs(b->tid, &regs, e);
	return r < 0 ? r : trace_set_sigmask(b->tid, mask, e);
}

/* The point at which the course of the task changes. The frame has been written by now. */
int live_divert(struct borrowed *b, const struct user_regs_struct *regs, uint64_t mask,
		struct error *e)
{
	bool own = b->mask == b->saved->sigmask, change = b->mask != mask;
	/* What raises a signal that was lent must not run while it is blocked: it would stay. */
	bool first = change && !own && b->lent;
	int r = first ? trace_set_sigmask(b->tid, mask, e) : 0;

	b->entered = true;
	b->mask = mask;
	if (r == 0 && change && own)
		r = change_mask(b, mask, e);
	if (r == 0)
		r = trace_set_regs(b->tid, regs, e);
	if (r == 0 && change && !own && !first)
		r = trace_set_sigmask(b->tid, mask, e);
	return r;
}

/* Back to where it was, ready to be let go. */
int live_end(struct borrowed *b, struct error *e)
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
	if (r == 0 && b->mask != b->saved->sigmask)
		r = change_mask(b, b->saved->sigmask, e);
	if (r == 0)
		r = trace_set_regs(b->tid, &b->saved->regs, e);
	b->entered = r < 0;
	return r;
}

/* ---- the keeper ---- */

uint64_t live_quiet_mask(const struct borrowed *b)
{
	return ~(FAULT_SIGNALS & ~b->saved->sigmask & ~b->saved->faults);
}

static uint64_t leave_frame_at(const struct agent *a, unsigned int i)
{
	return a->leave + i * ARCH_CALL_FRAME;
}

uint64_t live_errand_at(const struct agent *a)
{
	return leave_frame_at(a, 2);
}

uint64_t live_leave_at(const struct borrowed *b)
{
	return b->a->undo ? b->a->undo : leave_frame_at(b->a, b->side);
}

static void build_leave(const struct borrowed *b, bool keeper, uint8_t *buf)
{
	const uint64_t unmap[6] = {b->a->mapping, AGENT_SIZE}, none[6] = {};

	arch_call_frame_build(buf, &b->a->gadgets, live_frame_at(b), live_quiet_mask(b),
			      &b->saved->regs, 0, keeper ? SYS_munmap : SYS_getpid,
			      keeper ? unmap : none);
}

int live_write_leave(struct borrowed *b, struct error *e)
{
	uint8_t buf[ARCH_CALL_FRAME];

	build_leave(b, !b->a->keeper.tid, buf);
	live_use_slot(&b->a->slot, b->a->leave + LEAVE_ALIGN);
	return mem_write(b->tid, leave_frame_at(b->a, b->side), buf, sizeof(buf), e);
}

int live_park(struct borrowed *b, struct error *e)
{
	struct user_regs_struct regs = b->saved->regs;
	int r;

	arch_set_return(&regs, b->a->gadgets.sigreturn, live_leave_at(b));
	r = live_divert(b, &regs, b->mask == b->saved->sigmask ? live_quiet_mask(b) : b->mask, e);
	if (r == 0)
		b->a->keeper = *b;
	return r;
}

/*
 * Brings a thread back. If that fails twice it is left to itself, as if we had died: then the
 * frames and what else it needs for that have to stay.
 */
static int give_back(struct borrowed *b, struct error *e)
{
	int r = live_end(b, e);

	if (r < 0 && r != -ESRCH && live_end(b, NULL) < 0)
		b->a->abandoned = true;
	return r;
}

/*
 * From the keeper to another thread. Neither runs, and what is written lies in one page: a fatal
 * signal for us comes before or after it (process_vm_rw() looks for one at each page).
 */
static int take_over(struct borrowed *b, struct error *e)
{
	struct agent *a = b->a;
	struct borrowed before = a->keeper;
	uint8_t buf[2 * ARCH_CALL_FRAME];
	struct user_regs_struct regs = b->saved->regs;
	int r = live_write_leave(b, e);

	arch_set_return(&regs, a->gadgets.sigreturn, leave_frame_at(a, b->side));
	if (r == 0)
		r = live_divert(b, &regs, live_quiet_mask(b), e);
	build_leave(&before, false, buf + before.side * ARCH_CALL_FRAME);
	build_leave(b, true, buf + b->side * ARCH_CALL_FRAME);
	if (r == 0)
		r = mem_write(b->tid, a->leave, buf, sizeof(buf), e);
	if (r < 0) {
		ignore(give_back(b, NULL), "the first error counts");
		return r;
	}
	a->undo = 0;
	a->keeper = *b;
	return give_back(&before, e);
}

/*
 * Where the slot lies right below the stack pointer of one thread, no other may have its frames
 * there: should we die, that one goes on and writes over them. The others have their own. While
 * they are borrowed there is no keeper.
 */
static int begin_elsewhere(struct borrowed *b, struct error *e)
{
	struct agent *a = b->a;
	struct borrowed before = a->keeper;
	int r;

	a->keeper.tid = 0;
	a->undo = 0;
	r = before.tid ? give_back(&before, e) : 0;
	if (r == 0)
		r = slot_below(b->tid, arch_sp(&b->saved->regs) - arch_red_zone(),
			       live_frame_size(a) + (a->mapping ? 0 : DATA_ROOM), &b->own, e);
	if (r == 0)
		r = begin(b, e);
	if (r < 0)
		slot_free(&b->own);
	return r;
}

static int end_elsewhere(struct borrowed *b, struct error *e)
{
	struct agent *a = b->a;
	struct borrowed keeper;
	int r = slot_clear(&b->own, b->tid, e);

	slot_free(&b->own);
	if (r < 0 || !a->leave || !a->mapping || a->seccomp)
		return r;
	r = live_begin(&keeper, a, a->tid, a->saved, e);
	if (r == 0)
		r = live_write_leave(&keeper, e);
	return r == 0 ? live_park(&keeper, e) : r;
}

int live_begin(struct borrowed *b, struct agent *a, pid_t tid, const struct cpu_state *saved,
	       struct error *e)
{
	int r;

	if (a->abandoned)
		return error_set(e, -EIO, E_REMOTE, "task %d could not be brought back", tid);
	if (tid == a->keeper.tid) {
		*b = a->keeper;
		return 0;
	}
	*b = (struct borrowed){.a = a, .tid = tid, .saved = saved, .mask = saved->sigmask};
	if (a->slot.kept && tid != a->tid)
		return begin_elsewhere(b, e);
	b->side = a->keeper.tid ? 1 - a->keeper.side : 0;
	r = begin(b, e);
	return r == 0 && a->keeper.tid && !b->filtered ? take_over(b, e) : r;
}

bool live_is_keeper(const struct borrowed *b)
{
	return b->a->mapping && b->tid == b->a->keeper.tid;
}

/* Where a thread goes by itself after a call that it makes for us. */
uint64_t live_back(const struct borrowed *b)
{
	return live_is_keeper(b) ? live_leave_at(b) : live_frame_at(b);
}

/* Both errors count: the one that happened, else that of giving back. */
int live_finish(struct borrowed *b, int r, struct error *e)
{
	int given_back;

	if (r == 0 && live_is_keeper(b))
		given_back = live_park(b, e);
	else
		given_back = give_back(b, r < 0 ? NULL : e);
	if (given_back < 0 && live_is_keeper(b))
		ignore(give_back(b, NULL), "the first error counts");
	if ((r < 0 || given_back < 0) && b->tid == b->a->keeper.tid)
		b->a->keeper.tid = 0;
	if (b->own.kept && !b->a->abandoned)
		given_back = end_elsewhere(b, r < 0 ? NULL : e);
	slot_free(&b->own);
	if (r == 0 && given_back == 0) {
		b->a->last_tid = b->tid;
		b->a->last_saved = b->saved;
	}
	return r < 0 ? r : given_back;
}
