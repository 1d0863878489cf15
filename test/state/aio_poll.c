/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of asynchronous I/O that wait for files (IOCB_CMD_POLL), whose memory holds something
 * else by now.
 *
 * may-refuse: vma-kind only privileged users may look whether requests are in flight
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define N 4

static aio_context_t context;
static struct iocb requests[N];
static int pair[2], ends[2], counter, told;

static void ask(int i, int fd, unsigned int events, int notify)
{
	struct iocb *list[] = {&requests[i]};

	requests[i] = (struct iocb){.aio_data = 100 + (uint64_t)i,
				    .aio_lio_opcode = IOCB_CMD_POLL,
				    .aio_fildes = (uint32_t)fd,
				    .aio_buf = events,
				    .aio_flags = notify >= 0 ? IOCB_FLAG_RESFD : 0,
				    .aio_resfd = notify >= 0 ? (uint32_t)notify : 0};
	if (syscall(SYS_io_submit, context, 1, list) < 0 && errno == EINVAL)
		test_skip("no IOCB_CMD_POLL");
}

static void expect(int i, int events)
{
	struct io_event e = {};

	CHECK_EQUAL(syscall(SYS_io_getevents, context, 1, 1, &e, NULL), 1);
	CHECK_EQUAL(e.data, 100 + i);
	CHECK_EQUAL(e.obj, (uintptr_t)&requests[i]);
	CHECK_EQUAL(e.res & (events ? events : -1), events);
}

static void none(void)
{
	struct timespec now = {};
	struct io_event e;

	CHECK_EQUAL(syscall(SYS_io_getevents, context, 0, 1, &e, &now), 0);
}

int main(void)
{
	struct io_event cancelled;
	uint64_t n = 0;
	int moved;

	test_init();
	if (syscall(SYS_io_setup, 8, &context) < 0)
		test_skip("no asynchronous I/O: %s", strerror(errno));
	counter = eventfd(0, 0);
	told = eventfd(0, EFD_NONBLOCK);
	CHECK(!pipe(ends) && !socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	ask(0, counter, POLLIN, told);
	/* under a number that means something else by now */
	moved = dup(ends[0]);
	ask(1, moved, POLLIN, -1);
	CHECK(dup2(counter, moved) == moved);
	ask(2, pair[0], POLLIN | POLLRDHUP, -1);
	ask(3, ends[0], POLLIN, -1);
	memset(&requests[0], 0xa5, 2 * sizeof(requests[0]));
	none();

	test_wait();
	if (test_break(1))
		CHECK_EQUAL(write(ends[1], "x", 1), 1);
	if (test_break(2))
		requests[1].aio_data = 0;
	for (size_t i = 0; i < 2 * sizeof(requests[0]); i++)
		CHECK_EQUAL(((unsigned char *)requests)[i], 0xa5);
	none();
	CHECK(!eventfd_write(counter, 1));
	expect(0, POLLIN);
	CHECK_EQUAL(read(told, &n, sizeof(n)), sizeof(n));
	CHECK_EQUAL(n, 1);
	requests[3].aio_key = 0;
	CHECK(syscall(SYS_io_cancel, context, &requests[3], &cancelled) < 0 &&
	      errno == EINPROGRESS);
	expect(3, 0);
	CHECK_EQUAL(write(ends[1], "x", 1), 1);
	expect(1, POLLIN);
	CHECK(!close(pair[1]));
	expect(2, POLLIN | POLLRDHUP);
	none();
	CHECK(!syscall(SYS_io_destroy, context));
	test_pass();
}
