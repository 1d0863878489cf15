/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests in flight of io_uring that are held back until all before them have ended
 * (IOSQE_IO_DRAIN), what came after them, chains among them, and what runs at once when its turn
 * comes; and what is linked to a time that passes at any moment of the checkpoint and the restart.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
/* not-in: both: the original writes to the same file */
#include "ring.h"

#include <fcntl.h>
#include <linux/time_types.h>
#include <sys/socket.h>

#define TIMED 100

static struct ring ring, in_chain, timed;
static int of_timed[2];
static int first[2], second[2], third[2], pair[2], plain, closed;
static char into[4][16];

static struct io_uring_sqe *ask(struct ring *r, uint8_t op, uint64_t data, int fd, const void *at,
				uint32_t len, uint8_t flags)
{
	struct io_uring_sqe *sqe = ring_sqe(r, op, data);

	sqe->fd = fd;
	sqe->addr = (uintptr_t)at;
	sqe->len = len;
	sqe->flags = flags;
	return sqe;
}

static void expect(struct ring *r, uint64_t data, int32_t result)
{
	while (!ring_peek(r))
		ring_enter(r, 0, 1);
	ring_take(r, data, result);
}

static void set_up(void)
{
	ring_make(&ring, 16, 0);
	ring_make(&in_chain, 8, 0);
	ring_nops(&ring, 5, 0);
	CHECK(!pipe(first) && !pipe(second) && !pipe(third));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	plain = open("file", O_CREAT | O_RDWR, 0600);
	closed = dup(plain);
	CHECK(plain >= 0 && closed >= 0);
	ask(&ring, IORING_OP_READ, 1, first[0], into[0], 16, 0);
	ask(&ring, IORING_OP_WRITE, 2, plain, "drained", 7, IOSQE_IO_DRAIN);
	ask(&ring, IORING_OP_READ, 3, second[0], into[1], 16, 0);
	ask(&ring, IORING_OP_FSYNC, 4, plain, NULL, 0, IOSQE_IO_DRAIN | IOSQE_IO_LINK);
	ask(&ring, IORING_OP_SHUTDOWN, 5, pair[0], NULL, SHUT_WR, IOSQE_IO_LINK);
	ask(&ring, IORING_OP_CLOSE, 6, closed, NULL, 0, 0);
	ring_enter(&ring, 6, 0);
	CHECK(!ring_peek(&ring));
	/* one in the middle of a chain: the chain waits, and so does what comes after it */
	ask(&in_chain, IORING_OP_READ, 11, third[0], into[2], 16, 0);
	ask(&in_chain, IORING_OP_NOP, 12, -1, NULL, 0, IOSQE_IO_LINK);
	ask(&in_chain, IORING_OP_NOP, 13, -1, NULL, 0, IOSQE_IO_DRAIN);
	ask(&in_chain, IORING_OP_NOP, 14, -1, NULL, 0, 0);
	ring_enter(&in_chain, 4, 0);
	CHECK(!ring_peek(&in_chain));
}

/* Every two milliseconds a byte comes. */
static void timed_set_up(void)
{
	ring_make(&timed, 256, 0);
	CHECK(!pipe(of_timed));
	for (int i = 0; i < TIMED; i++) {
		struct __kernel_timespec ts = {.tv_nsec = 2000000 * i + 1};

		ask(&timed, IORING_OP_TIMEOUT, 20, -1, &ts, 1, IOSQE_IO_LINK)->timeout_flags =
			IORING_TIMEOUT_ETIME_SUCCESS;
		ask(&timed, IORING_OP_WRITE, 21, of_timed[1], "x", 1, 0);
		ring_enter(&timed, 2, 0);
	}
}

static void timed_check(void)
{
	char all[TIMED + 1];
	int written = 0;

	for (int i = 0; i < 2 * TIMED; i++) {
		while (!ring_peek(&timed))
			ring_enter(&timed, 0, 1);
		if (ring_peek(&timed)->user_data == 20)
			CHECK_EQUAL(ring_peek(&timed)->res, -ETIME);
		else
			CHECK_EQUAL(ring_peek(&timed)->res, 1);
		written += ring_peek(&timed)->user_data == 21;
		ring_taken(&timed);
	}
	CHECK_EQUAL(written, TIMED);
	CHECK_EQUAL(read(of_timed[0], all, sizeof(all)), TIMED);
	ring_empty(&timed);
}

static void written(const char *what)
{
	char is[16] = "";

	CHECK_EQUAL(pread(plain, is, sizeof(is) - 1, 0), strlen(what));
	CHECK(!strcmp(is, what));
}

int main(void)
{
	test_init();
	set_up();
	timed_set_up();
	test_wait();
	CHECK(!ring_peek(&ring) && !ring_peek(&in_chain));
	CHECK_EQUAL(write(second[1], "early", 5), 5);
	CHECK(!ring_peek(&ring));
	written("");
	if (test_break(1))
		CHECK_EQUAL(write(first[1], "other", 5), 5);
	if (test_break(2))
		CHECK(!close(closed));
	CHECK_EQUAL(write(first[1], "first", 5), 5);
	expect(&ring, 1, 5);
	CHECK(!memcmp(into[0], "first", 5));
	/* these two in whatever order, and then the rest */
	for (int i = 0; i < 2; i++) {
		while (!ring_peek(&ring))
			ring_enter(&ring, 0, 1);
		CHECK(ring_peek(&ring)->user_data == 2 || ring_peek(&ring)->user_data == 3);
		CHECK_EQUAL(ring_peek(&ring)->res, ring_peek(&ring)->user_data == 2 ? 7 : 5);
		ring_taken(&ring);
	}
	written("drained");
	CHECK(!memcmp(into[1], "early", 5));
	expect(&ring, 4, 0);
	expect(&ring, 5, 0);
	expect(&ring, 6, 0);
	CHECK_EQUAL(read(pair[1], into[3], 16), 0);
	CHECK(fcntl(closed, F_GETFD) < 0 && fcntl(plain, F_GETFD) >= 0);
	CHECK(!ring_peek(&in_chain));
	CHECK_EQUAL(write(third[1], "third", 5), 5);
	expect(&in_chain, 11, 5);
	expect(&in_chain, 12, 0);
	expect(&in_chain, 13, 0);
	expect(&in_chain, 14, 0);
	ring_empty(&ring);
	ring_empty(&in_chain);
	timed_check();
	test_pass();
}
