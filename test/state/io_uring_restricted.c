/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings of io_uring of which only some operations are allowed: with registered files alone and a
 * request in flight, with requests that do nothing, and one that is not enabled yet.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <sys/eventfd.h>

static struct ring files, plain, disabled;
static int ends[2], told, number;
static char into[16];

static void restrict_to(struct ring *r, uint8_t op, uint8_t allowed, uint8_t required, int also)
{
	const struct io_uring_restriction only[] = {
		{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = op},
		{.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = allowed},
		{.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = required},
		{.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = (uint8_t)also}};

	ring_register(r, IORING_REGISTER_RESTRICTIONS, only, also < 0 ? 3 : 4);
}

static void read_fixed(uint64_t data)
{
	struct io_uring_sqe *sqe = ring_sqe(&files, IORING_OP_READ, data);

	sqe->fd = 0; /* the slot */
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->addr = (uintptr_t)into;
	sqe->len = sizeof(into);
	ring_enter(&files, 1, 0);
}

static void expect(struct ring *r, uint64_t data, int32_t result)
{
	while (!ring_peek(r))
		ring_enter(r, 0, 1);
	ring_take(r, data, result);
}

static void denied(struct ring *r, uint8_t op, uint8_t flags)
{
	ring_sqe(r, op, 9)->flags = flags;
	ring_enter(r, 1, 1);
	ring_take(r, 9, -EACCES);
}

static uint64_t times_told(void)
{
	uint64_t n = 0;

	return read(told, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void set_up(void)
{
	struct io_uring_rsrc_update self = {.offset = 3};

	CHECK(!pipe(ends));
	told = eventfd(0, EFD_NONBLOCK);
	ring_make(&files, 8, IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER);
	ring_register(&files, IORING_REGISTER_FILES, ends, 1);
	ring_register(&files, IORING_REGISTER_EVENTFD, &told, 1);
	restrict_to(&files, IORING_OP_READ, 0, IOSQE_FIXED_FILE, IORING_REGISTER_FILES_UPDATE);
	self.data = (uint64_t)files.fd;
	ring_register(&files, IORING_REGISTER_RING_FDS, &self, 1);
	number = (int)self.offset;
	ring_register(&files, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	for (uint64_t i = 0; i < 5; i++) {
		CHECK_EQUAL(write(ends[1], "some", 4), 4);
		read_fixed(i);
		expect(&files, i, 4);
	}
	denied(&files, IORING_OP_NOP, 0);
	denied(&files, IORING_OP_READ, 0);
	read_fixed(7);
	CHECK(!ring_peek(&files));
	CHECK_EQUAL(times_told(), 7);

	ring_make(&plain, 4, IORING_SETUP_R_DISABLED);
	restrict_to(&plain, IORING_OP_NOP, IOSQE_IO_LINK, 0, -1);
	ring_register(&plain, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	ring_nops(&plain, 500, 0);

	ring_make(&disabled, 4, IORING_SETUP_R_DISABLED);
	restrict_to(&disabled, IORING_OP_NOP, 0, 0, IORING_REGISTER_ENABLE_RINGS);
}

static void check_files(void)
{
	struct io_uring_files_update update = {.fds = (uintptr_t)ends};

	CHECK(!ring_peek(&files));
	CHECK_EQUAL(times_told(), 0);
	denied(&files, IORING_OP_NOP, 0);
	denied(&files, IORING_OP_NOP, IOSQE_FIXED_FILE);
	denied(&files, IORING_OP_READ, 0);
	denied(&files, IORING_OP_READ, IOSQE_FIXED_FILE | IOSQE_ASYNC);
	CHECK_EQUAL(write(ends[1], "waited", 6), 6);
	expect(&files, 7, 6);
	CHECK(!memcmp(into, "waited", 6));
	CHECK_EQUAL(times_told(), 5);
	ring_register(&files, IORING_REGISTER_FILES_UPDATE, &update, 1);
	CHECK(syscall(SYS_io_uring_register, files.fd, IORING_UNREGISTER_EVENTFD, NULL, 0) < 0 &&
	      errno == EACCES);
	CHECK_EQUAL(syscall(SYS_io_uring_enter, number, 0, 0, 1u << 4, NULL, 0), 0);
	ring_empty(&files);
}

int main(void)
{
	test_init();
	set_up();
	test_wait();
	if (test_break(1))
		CHECK_EQUAL(write(told, &(uint64_t){1}, 8), 8);
	if (test_break(2))
		plain.head--;
	check_files();
	ring_nops(&plain, 9, 0);
	ring_sqe(&plain, IORING_OP_NOP, 8)->flags = IOSQE_IO_LINK;
	ring_enter(&plain, 1, 1);
	ring_take(&plain, 8, 0);
	denied(&plain, IORING_OP_READ, 0);
	denied(&plain, IORING_OP_NOP, IOSQE_ASYNC);
	ring_empty(&plain);
	CHECK(syscall(SYS_io_uring_enter, disabled.fd, 0, 0, 0, NULL, 0) < 0 && errno == EBADFD);
	ring_register(&disabled, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	ring_nops(&disabled, 3, 0);
	denied(&disabled, IORING_OP_READ, 0);
	ring_empty(&disabled);
	test_pass();
}
