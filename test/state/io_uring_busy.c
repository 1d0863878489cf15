/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that writes and reads by io_uring all the time, by threads of the kernel: requests are
 * in flight when it is stopped, and end by themselves.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <fcntl.h>
#include <stdio.h>

#define PIECES 6
#define BYTES  (64 * 1024)

static char out[PIECES][BYTES], in[PIECES][BYTES];

static void transfer(struct ring *r, uint8_t op, int fd, char (*memory)[BYTES])
{
	bool seen[PIECES] = {};

	for (uint64_t i = 0; i < PIECES; i++) {
		struct io_uring_sqe *sqe = ring_sqe(r, op, i);

		sqe->fd = fd;
		sqe->flags = i % 2 ? IOSQE_ASYNC : 0;
		sqe->addr = (uintptr_t)memory[i];
		sqe->len = BYTES;
		sqe->off = i * BYTES;
	}
	ring_enter(r, PIECES, PIECES);
	for (int i = 0; i < PIECES; i++) {
		const struct io_uring_cqe *cqe = ring_peek(r);

		CHECKF(cqe, "%d completions instead of %d", i, PIECES);
		CHECK(cqe->user_data < PIECES && !seen[cqe->user_data]);
		CHECK_EQUAL(cqe->res, BYTES);
		seen[cqe->user_data] = true;
		ring_taken(r);
	}
}

static void round_trip(struct ring *r, int fd, uint64_t number)
{
	for (uint64_t i = 0; i < PIECES; i++)
		test_fill(out[i], BYTES, number * PIECES + i);
	transfer(r, IORING_OP_WRITE, fd, out);
	memset(in, 0, sizeof(in));
	transfer(r, IORING_OP_READ, fd, in);
	for (uint64_t i = 0; i < PIECES; i++)
		CHECK_FILLED(in[i], BYTES, number * PIECES + i);
}

int main(void)
{
	static struct ring ring, deferred;
	uint64_t number = 0;
	int fd;

	test_init();
	fd = open("data", O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && !unlink("data"));
	ring_make(&ring, 8, 0);
	ring_make(&deferred, 8, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	round_trip(&ring, fd, number++);
	test_ready();
	while (!test_going()) {
		round_trip(&ring, fd, number++);
		round_trip(&deferred, fd, number++);
	}
	if (test_break(1))
		ring.tail++;
	for (int i = 0; i < 20; i++)
		round_trip(i % 2 ? &ring : &deferred, fd, number++);
	ring_empty(&ring);
	ring_empty(&deferred);
	test_pass();
}
