/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors that are no more than a path (O_PATH): of a memfd, of a removed file that nobody has
 * open, of a fifo, of which they keep no end open. Through them it can be opened again.
 */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int reopen(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, flags);
	CHECKF(fd >= 0, "%s: %s", path, strerror(errno));
	return fd;
}

static void same(int path, int fd)
{
	struct stat a, b;
	char byte;

	CHECK_EQUAL(fcntl(path, F_GETFL) & O_PATH, O_PATH);
	CHECK(read(path, &byte, 1) < 0 && errno == EBADF);
	CHECK(!fstat(path, &a) && !fstat(fd, &b));
	CHECK(a.st_ino == b.st_ino && a.st_dev == b.st_dev && a.st_mode == b.st_mode);
}

int main(void)
{
	int fifo, reader, writer, memory, memory_path, removed, device;
	char buf[8];

	test_init();
	signal(SIGPIPE, SIG_IGN);
	CHECK(!mkfifo("fifo", 0600));
	fifo = open("fifo", O_PATH);
	/* One with a name is the same for original and copy. */
	if (test_mode_is("both"))
		CHECK(!unlink("fifo"));
	reader = reopen(fifo, O_RDONLY | O_NONBLOCK);
	writer = reopen(fifo, O_WRONLY);
	CHECK_EQUAL(write(writer, "kept", 4), 4);
	memory = memfd_create("memory", 0);
	memory_path = reopen(memory, O_PATH);
	/* nobody has it open */
	close(test_file("removed", 100, 1));
	removed = open("removed", O_PATH);
	CHECK(!unlink("removed"));
	device = open("/dev/null", O_PATH);

	test_wait();
	if (test_break(1))
		CHECK(dup2(reader, fifo) == fifo);
	if (test_break(2))
		CHECK(dup2(memory, memory_path) == memory_path);
	same(fifo, reader);
	same(memory_path, memory);
	CHECK_EQUAL(fcntl(device, F_GETFL) & O_PATH, O_PATH);
	CHECK_EQUAL(write(reopen(device, O_WRONLY), "x", 1), 1);
	close(writer);
	CHECK_EQUAL(read(reader, buf, sizeof(buf)), 4);
	CHECK_EQUAL(read(reader, buf, 1), 0);
	writer = reopen(fifo, O_WRONLY);
	CHECK_EQUAL(write(writer, "x", 1), 1);
	CHECK_EQUAL(read(reader, buf, sizeof(buf)), 1);
	CHECK_EQUAL(pread(reopen(removed, O_RDONLY), buf, 8, 0), 8);
	CHECK_FILLED(buf, 8, 1);
	close(reader);
	CHECK(write(writer, "x", 1) < 0 && errno == EPIPE);
	test_pass();
}
