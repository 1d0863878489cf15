/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A signalfd in epoll sets tells of the signals of the process that added it, whoever else has both
 * of them: the parent, one child or another, under a number that means something else by now,
 * or one that has ended, of which nothing is told any more. One set is only in flight.
 *
 * needs: root
 * may-refuse: kernel-too-old
 */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PARENT, FIRST, SECOND, RENUMBERED, GONE, IN_FLIGHT, SETS };

static int sets[SETS], signals, moved;
/* Whoever looks at a set takes what is ready for another process out of its list. */
static atomic_flag *turn;

static void add(int set, int fd)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = (uint32_t)set};

	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

/* Which of them tell of a signal that we get. */
static unsigned int told(void)
{
	struct signalfd_siginfo info;
	struct epoll_event event;
	unsigned int mask = 0;

	while (atomic_flag_test_and_set(turn))
		sched_yield();
	/* An edge may be reported once more after a restart. */
	for (int i = 0; i < SETS; i++)
		while (epoll_wait(sets[i], &event, 1, 0) > 0)
			;
	CHECK(!kill(getpid(), SIGUSR1));
	for (int i = 0; i < SETS; i++)
		if (epoll_wait(sets[i], &event, 1, 0) == 1) {
			CHECK_EQUAL(event.data.u32, sets[i]);
			mask |= 1u << i;
		}
	CHECK_EQUAL(read(signals, &info, sizeof(info)), (ssize_t)sizeof(info));
	atomic_flag_clear(turn);
	return mask;
}

static int child(void *arg)
{
	int mine = *(int *)arg;

	add(sets[mine], signals);
	CHECK_EQUAL(told(), 1u << mine);
	test_write(mine == FIRST ? "first" : "second", "", 0);
	test_hold();
	CHECK_EQUAL(told(), 1u << mine);
	return 3;
}

static int gone(void *arg)
{
	add(sets[GONE], signals);
	return 0;
}

/* FD is sent, or received if it is -1. */
static int carry(int socket, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(fd))];
	} control = {.head = {CMSG_LEN(sizeof(fd)), SOL_SOCKET, SCM_RIGHTS}};
	char byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};

	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	CHECK_EQUAL(fd < 0 ? recvmsg(socket, &msg, 0) : sendmsg(socket, &msg, 0), 1);
	memcpy(&fd, CMSG_DATA(&control.head), sizeof(fd));
	return fd;
}

int main(void)
{
	int first = FIRST, second = SECOND, pair[2];
	pid_t a, b;
	sigset_t set;

	test_init();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
	signals = signalfd(-1, &set, SFD_NONBLOCK);
	turn = mmap(NULL, sizeof(*turn), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(turn != MAP_FAILED);
	for (int i = 0; i < SETS; i++)
		sets[i] = epoll_create1(0);
	moved = dup(signals);
	add(sets[RENUMBERED], moved);
	CHECK_EQUAL(dup2(0, moved), moved);
	test_reap(test_fork(gone, NULL), 0);
	a = test_fork(child, &first);
	b = test_fork(child, &second);
	add(sets[PARENT], signals);
	CHECK(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair));
	add(sets[IN_FLIGHT], signals);
	carry(pair[0], sets[IN_FLIGHT]);
	CHECK(!close(sets[IN_FLIGHT]));
	sets[IN_FLIGHT] = -1;
	while (access("first", F_OK) || access("second", F_OK))
		usleep(1000);

	test_wait();
	if (test_break(1))
		CHECK(!epoll_ctl(sets[PARENT], EPOLL_CTL_DEL, signals, NULL));
	sets[IN_FLIGHT] = carry(pair[1], -1);
	CHECK_EQUAL(told(), 1u << PARENT | 1u << RENUMBERED | 1u << IN_FLIGHT);
	test_reap(a, 3);
	test_reap(b, 3);
	test_pass();
}
