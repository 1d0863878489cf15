/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll: one-shot entries that have fired, changed masks, exclusive ones, busy polling; a large set
 * in which some numbers have been closed or reused; a set that a child uses, of descriptors that
 * only it has.
 */
#include "harness.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MANY 300

/* linux/eventpoll.h of 6.9 */
struct params {
	uint32_t usecs;
	uint16_t budget;
	uint8_t prefer, pad;
};
#define SET_PARAMS _IOW(0x8A, 0x01, struct params)
#define GET_PARAMS _IOR(0x8A, 0x02, struct params)

static int set, large, numbers[MANY], kept[2], foreign;

static void add(int to, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = {.events = events, .data.u64 = data};

	CHECK(!epoll_ctl(to, EPOLL_CTL_ADD, fd, &event));
}

static void expect(int from, uint64_t data)
{
	struct epoll_event events[4];

	CHECK_EQUAL(epoll_wait(from, events, 4, 0), 1);
	CHECK_EQUAL(events[0].data.u64, data);
}

static int child(void *arg)
{
	int fd = eventfd(0, EFD_NONBLOCK);

	add(foreign, fd, EPOLLIN, 77);
	test_write("child-ready", "", 0);
	test_hold();
	eventfd_write(fd, 1);
	expect(foreign, 77);
	return 8;
}

static void set_up_large(void)
{
	large = epoll_create1(0);
	for (int i = 0; i < MANY; i++) {
		numbers[i] = eventfd(0, EFD_NONBLOCK);
		add(large, numbers[i], i % 3 ? EPOLLIN : EPOLLIN | EPOLLET, 1000 + i);
	}
	/* Two whose numbers are no more theirs; one of these means another member now. */
	kept[0] = dup(numbers[10]);
	kept[1] = dup(numbers[20]);
	close(numbers[10]);
	CHECK_EQUAL(dup2(numbers[30], numbers[20]), numbers[20]);
}

static void check_large(void)
{
	struct epoll_event events[MANY];
	eventfd_t n;

	/* Edges may be reported once more, but nothing is ready. */
	while (epoll_wait(large, events, MANY, 0) > 0)
		CHECK(events[0].events == 0);
	CHECK(!eventfd_write(kept[0], 1));
	expect(large, 1010);
	CHECK(!eventfd_read(kept[0], &n));
	CHECK(!eventfd_write(kept[1], 1));
	expect(large, 1020);
	CHECK(!eventfd_read(kept[1], &n));
	for (int i = 0; i < MANY; i++) {
		if (i == 10 || i == 20)
			continue;
		CHECK(!eventfd_write(numbers[i], 1));
		expect(large, 1000 + i);
		CHECK(!eventfd_read(numbers[i], &n));
	}
}

int main(void)
{
	struct params wanted = {.usecs = 20, .budget = 8, .prefer = 1}, params = {};
	struct epoll_event event = {};
	int fired[2], muted[2], exclusive, params_known;
	pid_t pid;

	test_init();
	set = epoll_create1(0);
	foreign = epoll_create1(EPOLL_CLOEXEC);
	pid = test_fork(child, NULL);
	while (access("child-ready", F_OK))
		usleep(1000);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fired));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, muted));
	add(set, fired[0], EPOLLOUT | EPOLLONESHOT, 1);
	expect(set, 1);
	add(set, muted[0], EPOLLIN, 2);
	event.data.u64 = 3;
	CHECK(!epoll_ctl(set, EPOLL_CTL_MOD, muted[0], &event));
	exclusive = eventfd(0, EFD_NONBLOCK);
	add(set, exclusive, EPOLLIN | EPOLLEXCLUSIVE, 5);
	params_known = !ioctl(set, SET_PARAMS, &wanted);
	set_up_large();

	test_wait();
	if (test_break(1)) {
		event.events = EPOLLONESHOT;
		CHECK(!epoll_ctl(set, EPOLL_CTL_MOD, fired[0], &event));
	}
	if (test_break(2))
		CHECK(!epoll_ctl(large, EPOLL_CTL_DEL, numbers[299], NULL));
	if (test_break(3)) {
		CHECK(!epoll_ctl(set, EPOLL_CTL_DEL, exclusive, NULL));
		add(set, exclusive, EPOLLIN, 5);
	}
	/* Such an entry cannot be changed. */
	event = (struct epoll_event){.events = EPOLLIN, .data.u64 = 5};
	CHECK(epoll_ctl(set, EPOLL_CTL_MOD, exclusive, &event) < 0 && errno == EINVAL);
	CHECK(!eventfd_write(exclusive, 1));
	expect(set, 5);
	CHECK(!epoll_ctl(set, EPOLL_CTL_DEL, exclusive, NULL));
	/* It has fired: not even the end of the other side is reported. */
	close(fired[1]);
	CHECK_EQUAL(epoll_wait(set, &event, 1, 0), 0);
	event = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 4};
	CHECK(!epoll_ctl(set, EPOLL_CTL_MOD, fired[0], &event));
	expect(set, 4);
	/* Asked for nothing, which leaves errors and hang-ups. */
	CHECK_EQUAL(write(muted[1], "x", 1), 1);
	CHECK_EQUAL(epoll_wait(set, &event, 1, 0), 0);
	close(muted[1]);
	expect(set, 3);
	if (params_known) {
		CHECK(!ioctl(set, GET_PARAMS, &params));
		CHECK(!memcmp(&params, &wanted, sizeof(params)));
	}
	check_large();
	test_reap(pid, 8);
	test_pass();
}
