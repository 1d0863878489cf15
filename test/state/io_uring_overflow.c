/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completions for which there is no room in the rings of an io_uring: the kernel keeps them, and
 * gives them in their order when there is some.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#define ENTRIES 4
#define OUTSIDE 500

static struct ring plain, deferred, taken;

static void submit(struct ring *r, uint64_t data)
{
	ring_sqe(r, IORING_OP_NOP, data);
	ring_enter(r, 1, 0);
}

static void overflow(struct ring *r, unsigned int flags)
{
	ring_make(r, ENTRIES, flags);
	ring_nops(r, 7, 0);
	for (uint64_t i = 0; i < 2 * ENTRIES + OUTSIDE; i++)
		submit(r, 100 + i);
	CHECK(*word(r, r->p.sq_off.flags) & IORING_SQ_CQ_OVERFLOW);
}

/* All of them, from one on. */
static void check(struct ring *r, uint64_t from)
{
	for (uint64_t i = from; i < 2 * ENTRIES + OUTSIDE; i++) {
		if (!ring_peek(r))
			ring_enter(r, 0, 0);
		ring_take(r, 100 + i, 0);
	}
	ring_enter(r, 0, 0);
	CHECK(!(*word(r, r->p.sq_off.flags) & IORING_SQ_CQ_OVERFLOW));
	ring_empty(r);
	ring_nops(r, 30, 0);
}

int main(void)
{
	test_init();
	overflow(&plain, 0);
	overflow(&deferred, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	overflow(&taken, 0);
	/* there is room again, but nobody has asked */
	for (uint64_t i = 0; i < 3; i++)
		ring_take(&taken, 100 + i, 0);
	test_wait();
	if (test_break(1))
		submit(&plain, 5);
	if (test_break(2))
		ring_take(&taken, 103, 0);
	CHECK_EQUAL(*word(&taken, taken.p.cq_off.tail) - taken.head, 2 * ENTRIES - 3);
	check(&plain, 0);
	check(&deferred, 0);
	check(&taken, 3);
	test_pass();
}
