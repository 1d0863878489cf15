/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fifos that were opened for reading without waiting: before a writer has come poll() tells of no
 * hang-up, and when it has gone it does. Several readers of one fifo may differ in that. And one
 * with contents, which the original has open still when a streamed restart begins.
 */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#define KINDS 3

static int events_of(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	CHECK(poll(&p, 1, 0) >= 0);
	return p.revents;
}

static int reopen(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, flags | O_NONBLOCK);
	CHECK(fd >= 0);
	return fd;
}

int main(void)
{
	static const char *const names[KINDS] = {"alone", "two", "removed"};
	int readers[KINDS], hung_up = -1, full = -1, set, set_too;
	char left[8] = "";
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = 5};

	test_init();
	for (int i = 0; i < KINDS; i++) {
		CHECK(!mkfifo(names[i], 0600));
		if (i == 1) {
			hung_up = open(names[i], O_RDONLY | O_NONBLOCK);
			close(open(names[i], O_WRONLY));
		}
		readers[i] = open(names[i], O_RDONLY | O_NONBLOCK);
		CHECK_EQUAL(events_of(readers[i]), 0);
		/* One with a name is the same for original and copy. */
		if (i == 2 || test_mode_is("both"))
			CHECK(!unlink(names[i]));
	}
	CHECK_EQUAL(events_of(hung_up), POLLHUP);
	/* The copy of one would find what the original has in it. */
	if (!test_mode_is("both")) {
		CHECK(!mkfifo("full", 0600));
		full = open("full", O_RDWR);
		CHECK_EQUAL(write(full, "left", 4), 4);
	}
	set = epoll_create1(0);
	set_too = epoll_create1(0);
	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, readers[0], &event));
	CHECK(!epoll_ctl(set_too, EPOLL_CTL_ADD, hung_up, &event));

	test_wait();
	if (test_break(1))
		close(reopen(readers[1], O_WRONLY));
	if (test_break(2)) {
		CHECK_EQUAL(dup2(reopen(hung_up, O_RDONLY), hung_up), hung_up);
	}
	if (full >= 0) {
		CHECK_EQUAL(read(full, left, sizeof(left)), 4);
		CHECK(!memcmp(left, "left", 4));
	}
	CHECK_EQUAL(epoll_wait(set, &event, 1, 0), 0);
	CHECK_EQUAL(epoll_wait(set_too, &event, 1, 0), 1);
	CHECK_EQUAL(event.events, EPOLLHUP);
	CHECK_EQUAL(events_of(hung_up), POLLHUP);
	for (int i = 0; i < KINDS; i++) {
		int writer;
		char byte;

		CHECK_EQUAL(events_of(readers[i]), 0);
		CHECK_EQUAL(read(readers[i], &byte, 1), 0);
		writer = reopen(readers[i], O_WRONLY);
		CHECK_EQUAL(write(writer, "x", 1), 1);
		CHECK_EQUAL(events_of(readers[i]), POLLIN);
		CHECK_EQUAL(read(readers[i], &byte, 1), 1);
		close(writer);
		CHECK_EQUAL(events_of(readers[i]), POLLHUP);
	}
	test_pass();
}
