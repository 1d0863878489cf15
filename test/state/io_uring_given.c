/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers that were given to an io_uring by requests (IORING_OP_PROVIDE_BUFFERS): many at once and
 * one by one, some of which have been taken and given back. They are taken in the same order.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <stdio.h>
#include <sys/socket.h>

#define SIZE 64

static struct ring ring;
static char many[1000][SIZE], few[8][SIZE];
static int pair[2], waiting[2];

static void give(uint16_t group, uint16_t first, unsigned int n, void *at, uint32_t size)
{
	struct io_uring_sqe *sqe = ring_sqe(&ring, IORING_OP_PROVIDE_BUFFERS, 1);

	sqe->fd = (int)n;
	sqe->addr = (uintptr_t)at;
	sqe->len = size;
	sqe->off = first;
	sqe->buf_group = group;
	ring_enter(&ring, 1, 1);
	ring_take(&ring, 1, 0);
}

static void receive(int fd, uint16_t group, uint64_t data)
{
	struct io_uring_sqe *sqe = ring_sqe(&ring, IORING_OP_RECV, data);

	sqe->fd = fd;
	sqe->flags = IOSQE_BUFFER_SELECT;
	sqe->buf_group = group;
	ring_enter(&ring, 1, 0);
}

/* What comes next goes to this buffer. */
static void expect(uint64_t data, int length, unsigned int buffer)
{
	const struct io_uring_cqe *cqe;

	while (!(cqe = ring_peek(&ring)))
		ring_enter(&ring, 0, 1);
	CHECK_EQUAL(cqe->user_data, data);
	CHECK_EQUAL(cqe->res, length);
	CHECK_EQUAL(cqe->flags >> IORING_CQE_BUFFER_SHIFT, buffer);
	ring_taken(&ring);
}

static void pass_on(uint16_t group, unsigned int buffer, int length)
{
	CHECK_EQUAL(write(pair[1], "some words that fill a buffer", 29), 29);
	receive(pair[0], group, 3);
	expect(3, length, buffer);
	if (length < 29)
		CHECK_EQUAL(read(pair[0], many[999], SIZE), 29 - length);
}

static void set_up(void)
{
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, waiting));
	ring_make(&ring, 4, 0);
	ring_nops(&ring, 30, 0);
	give(7, 10, 900, many, SIZE);
	pass_on(7, 10, 29);
	pass_on(7, 11, 29);
	pass_on(7, 12, 29);
	give(7, 11, 1, many[1], SIZE);
	give(9, 3, 1, few[3], SIZE);
	give(9, 5, 2, few[5], 20);
	give(9, 1, 1, few[1], SIZE);
	give(9, 2, 1, few[2], 30);
	pass_on(9, 3, 29);
	receive(waiting[0], 7, 50);
}

int main(void)
{
	test_init();
	set_up();
	test_wait();
	if (test_break(1))
		pass_on(9, 5, 20);
	if (test_break(2))
		pass_on(7, 13, 29);
	CHECK_EQUAL(write(waiting[1], "waited", 6), 6);
	expect(50, 6, 13);
	CHECK(!memcmp(many[3], "waited", 6));
	pass_on(9, 5, 20);
	pass_on(9, 6, 20);
	pass_on(9, 1, 29);
	give(9, 3, 1, few[3], SIZE);
	pass_on(9, 2, 29);
	pass_on(9, 3, 29);
	receive(pair[0], 9, 4);
	expect(4, -ENOBUFS, 0);
	for (unsigned int i = 14; i < 910; i++)
		pass_on(7, i, 29);
	pass_on(7, 11, 29);
	ring_empty(&ring);
	test_pass();
}
