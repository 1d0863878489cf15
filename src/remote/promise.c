/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/cleanup.h"
#include "remote/live_private.h"

/*
 * What is changed for a moment in an application is undone by itself if we die: the keeper is
 * parked in front of the calls that do so. Each is a frame that returns to the next one, and the
 * last to that which unmaps the agent.
 */

static uint64_t frame_at(const struct agent *a, size_t i)
{
	return a->leave + LEAVE_ALIGN + i * ARCH_CALL_FRAME;
}

static uint64_t value_at(const struct agent *a, size_t i)
{
	return frame_at(a, PROMISES_MAX) + i * sizeof(uint64_t);
}

/* b is the keeper, and nothing is promised. */
static int write_all(const struct borrowed *b, const struct agent_promise *calls, size_t n,
		     struct error *e)
{
	uint8_t buf[PROMISES_MAX * (ARCH_CALL_FRAME + sizeof(uint64_t))] = {};
	struct agent *a = b->a;

	for (size_t i = 0; i < n; i++) {
		uint64_t args[6];

		memcpy(args, calls[i].args, sizeof(args));
		if (calls[i].value_arg)
			args[calls[i].value_arg] = value_at(a, i);
		arch_call_frame_build(buf + i * ARCH_CALL_FRAME, &a->gadgets,
				      i + 1 < n ? frame_at(a, i + 1) : live_leave_at(b),
				      live_quiet_mask(b), &b->saved->regs, 0, calls[i].nr, args);
		memcpy(buf + PROMISES_MAX * ARCH_CALL_FRAME + i * sizeof(uint64_t), &calls[i].value,
		       sizeof(calls[i].value));
	}
	live_use_slot(&a->slot, frame_at(a, 0) + sizeof(buf));
	return mem_write(b->tid, frame_at(a, 0), buf, sizeof(buf), e);
}

int agent_promise(struct agent *a, pid_t tid, const struct agent_promise *calls, size_t n,
		  struct error *e)
{
	struct borrowed b;
	int r;

	/* One that is leaving is not there any more: its thread runs. */
	if (!a || !a->live || !a->mapping || a->errand || a->abandoned || a->keeper.tid != tid ||
	    !n || n > PROMISES_MAX)
		return 0;
	b = a->keeper;
	a->undo = 0;
	r = write_all(&b, calls, n, e);
	if (r < 0)
		return r;
	a->undo = frame_at(a, 0);
	r = live_park(&b, e);
	return r < 0 ? r : 1;
}

int agent_absolve(struct agent *a, struct error *e)
{
	struct borrowed b = a->keeper;

	a->undo = 0;
	return b.tid && a->mapping && !a->errand ? live_park(&b, e) : 0;
}

long agent_syscall_undone(struct agent *a, pid_t tid, const struct cpu_state *saved,
			  struct error *e, long nr, const uint64_t args[6], long undo,
			  uint64_t undo_arg)
{
	const struct agent_promise call = {.nr = undo, .args = {undo_arg}};
	struct borrowed b;
	long result = 0;
	int r = live_begin(&b, a, tid, saved, e);

	if (r < 0)
		return r;
	if (live_is_keeper(&b)) {
		a->undo = 0;
		r = write_all(&b, &call, 1, e);
		a->undo = r == 0 ? frame_at(a, 0) : 0;
	}
	if (r == 0)
		r = live_single(&b, live_is_keeper(&b) ? live_leave_at(&b) : live_frame_at(&b), nr,
				args, &result, e);
	if (result != (long)undo_arg)
		a->undo = 0;
	r = live_finish(&b, r, e);
	if (r < 0) /* it may have been made */
		ignore((int)live_syscall(a, tid, saved, NULL, undo, call.args), "the error counts");
	return r < 0 ? r : result;
}

uint64_t agent_promise_arg_at(const struct agent *a, size_t i)
{
	return frame_at(a, i) + ARCH_CALL_FRAME_ARG0;
}

long agent_syscall_promised(struct agent *a, pid_t tid, const struct cpu_state *saved,
			    struct error *e, long nr, const uint64_t args[6],
			    const struct agent_promise *calls, size_t n)
{
	struct borrowed b;
	long result = 0;
	int r = live_begin(&b, a, tid, saved, e);

	if (r < 0)
		return r;
	if (!live_is_keeper(&b) || n > PROMISES_MAX)
		r = error_set(e, -ENOTSUP, E_REMOTE, "nothing can be promised in task %d", tid);
	/* The last frame leads to where the task leaves. The same again changes nothing. */
	a->undo = 0;
	if (r == 0)
		r = write_all(&b, calls, n, e);
	if (r == 0) {
		a->undo = frame_at(a, 0);
		r = live_single(&b, live_leave_at(&b), nr, args, &result, e);
	}
	if (r < 0 || (result < 0 && result >= -4095))
		a->undo = 0;
	r = live_finish(&b, r, e);
	return r < 0 ? r : result;
}
