/* SPDX-License-Identifier: Apache-2.0 */
/* epoll: nested, one-shot, numbers that were closed or are used for something else, shared with a
 * child. */
#include "harness.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int set, of_child, pipe_ends[2];

static int child(void *arg)
{
	struct epoll_event event;

	CHECK_EQUAL(epoll_wait(of_child, &event, 1, -1), 1);
	CHECK_EQUAL(event.data.u64, 100);
	return 6;
}

static int add(int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = {.events = events, .data.u64 = data};

	return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
}

int main(void)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 9}, events[8];
	int outer, once, dead, kept, reused, other[2], n;
	uint64_t one = 1, number;
	pid_t pid;

	test_init();
	CHECK(!pipe(pipe_ends));
	CHECK(!pipe(other));
	set = epoll_create1(0);
	of_child = epoll_create1(0);
	event.data.u64 = 100;
	CHECK(!epoll_ctl(of_child, EPOLL_CTL_ADD, pipe_ends[0], &event));
	event.data.u64 = 9;
	outer = epoll_create1(EPOLL_CLOEXEC);
	CHECK(!epoll_ctl(outer, EPOLL_CTL_ADD, set, &event));
	CHECK(!add(pipe_ends[0], EPOLLIN, 100));
	once = eventfd(0, EFD_NONBLOCK);
	CHECK(!add(once, EPOLLIN | EPOLLONESHOT, 200));
	/* Added under a number that is closed, while the eventfd lives on under another. */
	dead = eventfd(0, EFD_NONBLOCK);
	CHECK(!add(dead, EPOLLIN | EPOLLET, 300));
	kept = fcntl(dead, F_DUPFD, 50);
	close(dead);
	/* And one whose number now means something else, in the set too. */
	reused = fcntl(other[0], F_DUPFD, 60);
	CHECK(!add(reused, EPOLLIN, 400));
	CHECK_EQUAL(dup2(once, reused), reused);
	CHECK(!add(reused, EPOLLIN, 500));
	pid = test_fork(child, NULL);

	test_wait();
	if (test_break(1))
		close(kept);
	CHECK_EQUAL(epoll_wait(set, events, 8, 0), 0);
	CHECK_EQUAL(write(kept, &one, 8), 8);
	CHECK_EQUAL(epoll_wait(outer, events, 8, 0), 1);
	CHECK_EQUAL(events[0].data.u64, 9);
	CHECK_EQUAL(epoll_wait(set, events, 8, 0), 1);
	CHECK_EQUAL(events[0].data.u64, 300);
	CHECK_EQUAL(read(kept, &number, 8), 8);
	CHECK_EQUAL(write(other[1], "x", 1), 1);
	CHECK_EQUAL(epoll_wait(set, events, 8, 0), 1);
	CHECK_EQUAL(events[0].data.u64, 400);
	CHECK_EQUAL(read(other[0], events, 1), 1);
	CHECK_EQUAL(write(once, &one, 8), 8);
	n = epoll_wait(set, events, 8, 0);
	CHECK_EQUAL(n, 2);
	CHECK_EQUAL(events[0].data.u64 + events[1].data.u64, 700);
	CHECK_EQUAL(epoll_wait(set, events, 8, 0), 1);
	CHECK_EQUAL(events[0].data.u64, 500);
	CHECK_EQUAL(read(once, &number, 8), 8);
	/* The application finds its entry by descriptor and number. */
	CHECK(!epoll_ctl(set, EPOLL_CTL_DEL, reused, NULL));
	event.events = EPOLLIN;
	event.data.u64 = 201;
	CHECK(!epoll_ctl(set, EPOLL_CTL_MOD, once, &event));
	CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pipe_ends[0], &event) < 0 && errno == EEXIST);
	CHECK_EQUAL(write(pipe_ends[1], "x", 1), 1);
	test_reap(pid, 6);
	test_pass();
}
