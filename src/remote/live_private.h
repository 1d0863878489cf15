/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_LIVE_PRIVATE_H
#define REPRISE_REMOTE_LIVE_PRIVATE_H

#include "remote/agent.h"

/*
 * The slot: a place where a thread passes from its own signal mask to ours or back (with nothing
 *but room below it), two places for the state of a thread (struct borrowed, side), so that one may
 *be kept while another thread is borrowed, and behind them, in one page, the frames of calls:
 *
 *	leave + 0    by which the thread of side 0 goes on
 *	leave + 1    by which that of side 1 does
 *	leave + 2    where one goes that is on an errand, when its call has ended
 *
 * and behind that page the frames of calls that undo something before (promise.c).
 *
 * The frame of the keeper is a munmap() of the agent, that of the other one a getpid(), and both
 * are written at once: so it is always one of them that takes the mapping away.
 */
#define DATA_ROOM    2048 /* that a slot offers at least where no mapping can be made */
#define LEAVE_ALIGN  1024 /* a part of a page that holds them */
#define PROMISES_MAX (1 + AGENT_ADVICES_MAX)
#define LEAVE_SIZE   (2UL * LEAVE_ALIGN + PROMISES_MAX * (ARCH_CALL_FRAME + sizeof(uint64_t)))

size_t live_frame_size(const struct agent *a);
uint64_t live_frame_at(const struct borrowed *b);

#define STOP_TIMEOUT_MS 10000

/* Takes a thread over; *b is set. Nothing has been changed in its course if it is not the keeper.
 */
int live_begin(struct borrowed *b, struct agent *a, pid_t tid, const struct cpu_state *saved,
	       struct error *e) must_check;
/* The point at which the course of the task changes; its frame is complete by then. */
int live_divert(struct borrowed *b, const struct user_regs_struct *regs, uint64_t mask,
		struct error *e) must_check;
/* Where a thread goes by itself after a call that it makes for us. */
uint64_t live_back(const struct borrowed *b);
/* One call, after which the thread would return to the frame at `back`. It is in a stop then. */
int live_single(struct borrowed *b, uint64_t back, long nr, const uint64_t args[6], long *ret,
		struct error *e) must_check;
/*
 * The same without waiting for it: see live_map.c. It stops where it can be let go, and what the
 * call has returned is not told. No signal interrupts it.
 */
bool live_can_post(const struct borrowed *b);
int live_post(struct borrowed *b, uint64_t back, long nr, const uint64_t args[6],
	      struct error *e) must_check;
int live_meet(struct borrowed *b, struct error *e) must_check;
/* r: what became of it. It stays where it would unmap the agent, or goes back to where it was. */
int live_finish(struct borrowed *b, int r, struct error *e) must_check;
int live_end(struct borrowed *b, struct error *e) must_check;

bool live_is_keeper(const struct borrowed *b);
/* The keeper goes where it would leave by itself. */
int live_park(struct borrowed *b, struct error *e) must_check;
uint64_t live_quiet_mask(const struct borrowed *b);
void live_use_slot(struct slot *slot, uint64_t end);

/* Before the mapping exists: whoever is killed behind this takes it away. */
int live_write_leave(struct borrowed *b, struct error *e) must_check;
uint64_t live_leave_at(const struct borrowed *b);
uint64_t live_errand_at(const struct agent *a);

/* live_map.c. Where there can be no mapping a->mapping stays 0. */
int live_map(struct agent *a, struct error *e) must_check;
int live_unmap(struct agent *a, struct error *e) must_check;

#endif
