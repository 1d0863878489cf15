/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts of asynchronous I/O: ids, unread events in a ring that has wrapped, an empty one, one
 * with a reader that waits; requests that are in flight at the checkpoint.
 *
 * may-refuse: vma-kind only privileged users may look whether requests are in flight
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct ring {
	unsigned int id, nr, head, tail, magic;
};

static aio_context_t unread, empty, waited;
static int file, event, quick;
static char direct[1 << 20] __attribute__((aligned(4096)));

static aio_context_t setup(unsigned int n)
{
	aio_context_t context = 0;

	if (syscall(SYS_io_setup, n, &context) < 0 && errno == ENOSYS)
		test_skip("no asynchronous I/O");
	CHECK(context);
	return context;
}

static void submit(aio_context_t context, int fd, uint64_t data, void *buf, size_t n, int notify)
{
	struct iocb iocb = {
		.aio_data = data,
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)fd,
		.aio_buf = (uint64_t)(uintptr_t)buf,
		.aio_nbytes = n,
		.aio_flags = notify >= 0 ? IOCB_FLAG_RESFD : 0,
		.aio_resfd = notify >= 0 ? (uint32_t)notify : 0,
	};
	struct iocb *list[] = {&iocb};

	CHECK_EQUAL(syscall(SYS_io_submit, context, 1, list), 1);
}

static void take(aio_context_t context, uint64_t data, long result)
{
	struct io_event e = {};

	CHECK_EQUAL(syscall(SYS_io_getevents, context, 1, 1, &e, NULL), 1);
	CHECK_EQUAL(e.data, data);
	CHECK_EQUAL(e.res, result);
}

static void none_left(aio_context_t context)
{
	struct timespec now = {};
	struct io_event e;

	CHECK_EQUAL(syscall(SYS_io_getevents, context, 0, 1, &e, &now), 0);
}

/* Each event adds one; the last ones may still be on their way. */
static void await_notices(uint64_t n)
{
	struct pollfd p = {.fd = event, .events = POLLIN};
	uint64_t sum = 0, count = 0;

	while (sum < n && poll(&p, 1, -1) == 1 && read(event, &count, sizeof(count)) > 0)
		sum += count;
	CHECK_EQUAL(sum, n);
	CHECK_EQUAL(read(event, &count, sizeof(count)), -1);
}

static struct ring *ring_of(aio_context_t context)
{
	return (struct ring *)context;
}

static void *wait_for_event(void *arg)
{
	take(waited, 77, 5);
	return NULL;
}

int main(void)
{
	unsigned int head, tail, nr;
	pthread_t thread;
	char buf[16] = "";

	test_init();
	file = test_file("data", 1 << 20, 5);
	event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	empty = setup(7);
	unread = setup(300);
	waited = setup(1);
	nr = ring_of(unread)->nr;
	for (unsigned int i = 0; i < nr - 3; i++) {
		submit(unread, file, i, buf, 4, -1);
		take(unread, i, 4);
	}
	for (unsigned int i = 0; i < 10; i++)
		submit(unread, file, 1000 + i, buf, i, event);
	head = ring_of(unread)->head;
	tail = ring_of(unread)->tail;
	CHECK(head > tail);
	CHECK(!pthread_create(&thread, NULL, wait_for_event, NULL));
	quick = open("data", O_RDONLY | O_DIRECT);
	if (quick >= 0)
		submit(empty, quick, 9, direct, sizeof(direct), event);

	test_wait();
	if (test_break(1))
		take(unread, 1000, 0);
	if (test_break(2))
		submit(unread, file, 2000, buf, 1, -1);
	CHECK_EQUAL(ring_of(unread)->head, head);
	CHECK_EQUAL(ring_of(unread)->tail, tail);
	await_notices(quick >= 0 ? 11 : 10);
	if (quick >= 0) {
		take(empty, 9, sizeof(direct));
		CHECK_FILLED(direct, sizeof(direct), 5);
	}
	none_left(empty);
	for (unsigned int i = 0; i < 10; i++)
		take(unread, 1000 + i, i);
	none_left(unread);
	submit(unread, file, 3, buf, 3, event);
	take(unread, 3, 3);
	submit(waited, file, 77, buf, 5, -1);
	CHECK(!pthread_join(thread, NULL));
	CHECK(!syscall(SYS_io_destroy, unread));
	CHECK_EQUAL(syscall(SYS_io_destroy, unread), -1);
	CHECK(!syscall(SYS_io_destroy, empty));
	CHECK(!syscall(SYS_io_destroy, waited));
	test_pass();
}
