/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registered files whose descriptors have been closed, and one that never had one: where they
 * stand, how they were opened, what advice was given.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <fcntl.h>
#include <stdio.h>

#define OP_FIXED_FD_INSTALL 54

static struct ring ring;

static void transfer(uint8_t op, int slot, const void *at, unsigned int size, int result)
{
	struct io_uring_sqe *sqe = ring_sqe(&ring, op, 7);

	sqe->fd = slot;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->addr = (uintptr_t)at;
	sqe->len = size;
	sqe->off = (uint64_t)-1; /* where it stands */
	ring_enter(&ring, 1, 1);
	ring_take(&ring, 7, result);
}

static void check_read(int slot, const char *text)
{
	char is[16] = "";

	transfer(IORING_OP_READ, slot, is, (unsigned int)strlen(text), (int)strlen(text));
	CHECKF(!strcmp(is, text), "slot %d: %s, not %s", slot, is, text);
}

static void open_direct(const char *path, int slot)
{
	struct io_uring_sqe *sqe = ring_sqe(&ring, IORING_OP_OPENAT, 8);

	sqe->fd = AT_FDCWD;
	sqe->addr = (uintptr_t)path;
	sqe->open_flags = O_RDWR | O_NONBLOCK;
	sqe->file_index = (uint32_t)slot + 1;
	ring_enter(&ring, 1, 1);
	ring_take(&ring, 8, 0);
}

static void set_up(void)
{
	int fds[4] = {-1, -1, -1, -1};

	test_write("read", "0123456789", 10);
	test_write("appended", "begin", 5);
	test_write("direct", "abcdefghij", 10);
	fds[0] = open("read", O_RDONLY | O_CLOEXEC);
	fds[2] = open("appended", O_WRONLY | O_APPEND | O_NOATIME);
	fds[1] = open("read", O_RDWR);
	CHECK(fds[0] >= 0 && fds[1] >= 0 && fds[2] >= 0);
	CHECK_EQUAL(lseek(fds[0], 3, SEEK_SET), 3);
	CHECK_EQUAL(lseek(fds[1], 6, SEEK_SET), 6);
	ring_register(&ring, IORING_REGISTER_FILES, fds, 4);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	open_direct("direct", 3);
	check_read(3, "ab");
}

/* Nobody else has it, and it is what it was. */
static void check_installed(int slot, int flags, off_t pos)
{
	struct io_uring_sqe *sqe = ring_sqe(&ring, OP_FIXED_FD_INSTALL, 9);
	const struct io_uring_cqe *cqe;
	int fd;

	sqe->fd = slot;
	sqe->flags = IOSQE_FIXED_FILE;
	ring_enter(&ring, 1, 1);
	cqe = ring_peek(&ring);
	CHECK(cqe && cqe->res >= 0);
	fd = cqe->res;
	ring_taken(&ring);
	CHECK_EQUAL(fcntl(fd, F_GETFL) & ~0100000, flags);
	CHECK_EQUAL(lseek(fd, 0, SEEK_CUR), pos);
	close(fd);
}

int main(void)
{
	char text[32];

	test_init();
	ring_make(&ring, 8, 0);
	set_up();

	test_wait();
	if (test_break(1))
		check_read(0, "3");
	if (test_break(2))
		transfer(IORING_OP_WRITE, 2, "x", 1, 1);
	if (test_break(3))
		ring_register(&ring, IORING_UNREGISTER_FILES, NULL, 0);
	check_read(0, "34");
	check_read(1, "678");
	check_read(3, "cd");
	transfer(IORING_OP_WRITE, 2, " end", 4, 4);
	test_read("appended", text, sizeof(text));
	CHECKF(!strncmp(text, "begin end", 9), "%s was written", text);
	if (!test_mode_is("both"))
		CHECK_EQUAL(strlen(text), 9);
	check_installed(0, O_RDONLY, 5);
	check_installed(1, O_RDWR, 9);
	check_installed(3, O_RDWR | O_NONBLOCK, 4);
	test_pass();
}
