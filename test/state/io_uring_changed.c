/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests in flight of io_uring for a registered file whose slot has another one by now, and for
 * another io_uring; a ring whose requests cannot wait for all before them; buffers that are used
 * bit by bit, but not to the last.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <poll.h>
#include <sys/socket.h>

#define RING_INC 2u /* IOU_PBUF_RING_INC */

static struct ring ring, watched, undrained;
static int old[2], new[2], pair[2];
static char of_old[16], of_new[16], buffers[2][64], group[4096] __attribute__((aligned(4096)));
static bool has_min_left;

static void ask(struct ring *r, uint8_t op, uint64_t data, int fd, void *at, uint8_t flags)
{
	struct io_uring_sqe *sqe = ring_sqe(r, op, data);

	sqe->fd = fd;
	sqe->addr = (uintptr_t)at;
	sqe->len = at ? 16 : 0;
	sqe->flags = flags;
	if (op == IORING_OP_POLL_ADD)
		sqe->poll32_events = POLLIN;
	ring_enter(r, 1, 0);
}

static void expect(uint64_t data, int32_t result)
{
	while (!ring_peek(&ring))
		ring_enter(&ring, 0, 1);
	ring_take(&ring, data, result);
}

/* What comes goes to this buffer, at this place in it. */
static void receive(unsigned int buffer, unsigned int at)
{
	struct io_uring_sqe *sqe = ring_sqe(&ring, IORING_OP_RECV, 3);

	CHECK_EQUAL(write(pair[1], "twenty bytes of text", 20), 20);
	sqe->fd = pair[0];
	sqe->flags = IOSQE_BUFFER_SELECT;
	sqe->buf_group = 7;
	ring_enter(&ring, 1, 1);
	CHECK(ring_peek(&ring));
	CHECK_EQUAL(ring_peek(&ring)->flags >> IORING_CQE_BUFFER_SHIFT, buffer);
	ring_take(&ring, 3, 20);
	CHECK(!memcmp(buffers[buffer] + at, "twenty bytes of text", 20));
}

static void provide(void)
{
	struct io_uring_buf_reg reg = {
		.ring_addr = (uintptr_t)group, .ring_entries = 2, .bgid = 7, .pad = RING_INC};
	struct io_uring_buf_ring *b = (void *)group;

	reg.resv[0] = 30; /* min_left */
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	has_min_left =
		syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_PBUF_RING, &reg, 1) >= 0;
	if (!has_min_left)
		return;
	for (uint16_t i = 0; i < 2; i++)
		b->bufs[i] = (struct io_uring_buf){(uintptr_t)buffers[i], 64, i, 0};
	b->tail = 2;
	receive(0, 0);
}

/* Once a request has asked for no completion, none can wait for all before it. */
static void undrained_fails(void)
{
	ring_sqe(&undrained, IORING_OP_NOP, 6)->flags = IOSQE_IO_DRAIN;
	ring_enter(&undrained, 1, 1);
	ring_take(&undrained, 6, -EOPNOTSUPP);
}

static void set_up(void)
{
	struct io_uring_files_update update = {.fds = (uintptr_t) new};

	ring_make(&ring, 8, 0);
	ring_make(&watched, 4, 0);
	ring_nops(&watched, 3, 0);
	ring_make(&undrained, 4, 0);
	ring_nops(&undrained, 1, IOSQE_CQE_SKIP_SUCCESS);
	undrained_fails();
	CHECK(!pipe(old) && !pipe(new));
	ring_register(&ring, IORING_REGISTER_FILES, old, 1);
	ask(&ring, IORING_OP_READ, 1, 0, of_old, IOSQE_FIXED_FILE);
	ring_register(&ring, IORING_REGISTER_FILES_UPDATE, &update, 1);
	ask(&ring, IORING_OP_READ, 2, 0, of_new, IOSQE_FIXED_FILE);
	ask(&ring, IORING_OP_POLL_ADD, 4, watched.fd, NULL, 0);
	provide();
}

int main(void)
{
	test_init();
	set_up();
	test_wait();
	CHECK(!ring_peek(&ring));
	CHECK_EQUAL(write(old[1], "old", 3), 3);
	if (test_break(1))
		CHECK_EQUAL(write(new[1], "old", 3), 3);
	expect(1, 3);
	CHECK(!memcmp(of_old, "old", 3));
	CHECK(!ring_peek(&ring));
	CHECK_EQUAL(write(new[1], "newer", 5), 5);
	expect(2, 5);
	CHECK(!memcmp(of_new, "newer", 5));
	if (!test_break(2))
		ring_nops(&watched, 1, 0);
	undrained_fails();
	ring_sqe(&watched, IORING_OP_NOP, 5)->flags = IOSQE_IO_DRAIN;
	ring_enter(&watched, 1, 0);
	if (test_break(2))
		ring_take(&watched, 5, 1);
	expect(4, POLLIN);
	if (has_min_left) {
		receive(0, 20);
		if (test_break(3))
			receive(0, 40);
		receive(1, 0);
	}
	test_pass();
}
