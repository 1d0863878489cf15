/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A signalfd that a child of vfork() has added to epoll sets, in one also as a number that nobody
 * has any more: they tell of the signals of that child, and not of its parent's.
 *
 * needs: root
 * may-refuse: kernel-too-old
 */
#include "harness.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

static int own, of_child, renumbered, signals, moved;

static void add(int set, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)set};

	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

static int tells(int set)
{
	struct epoll_event event;

	return epoll_wait(set, &event, 1, 0);
}

static void check_child(void)
{
	struct signalfd_siginfo info;

	CHECK(!syscall(SYS_tkill, syscall(SYS_getpid), SIGUSR1));
	CHECK_EQUAL(tells(of_child), 1);
	CHECK_EQUAL(tells(renumbered), 1);
	CHECK_EQUAL(read(signals, &info, sizeof(info)), (ssize_t)sizeof(info));
}

/* In memory of the parent, and on its stack. */
static void child(void)
{
	add(test_break(1) ? own : of_child, signals);
	moved = dup(signals);
	add(renumbered, moved);
	CHECK_EQUAL(dup2(0, moved), moved);
	test_wait();
	check_child();
}

int main(void)
{
	struct signalfd_siginfo info;
	sigset_t set;
	pid_t pid;

	test_init();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
	signals = signalfd(-1, &set, SFD_NONBLOCK);
	own = epoll_create1(0);
	of_child = epoll_create1(0);
	renumbered = epoll_create1(0);
	if (!test_break(1))
		add(own, signals);
	pid = vfork();
	CHECK(pid >= 0);
	if (pid == 0) {
		child();
		_exit(0);
	}
	test_reap(pid, 0);
	/* What was ready for the child is looked at once more. */
	CHECK_EQUAL(tells(of_child), 0);
	CHECK_EQUAL(tells(renumbered), 0);
	CHECK(!kill(getpid(), SIGUSR1));
	CHECK_EQUAL(tells(own), 1);
	CHECK_EQUAL(tells(of_child), 0);
	CHECK_EQUAL(tells(renumbered), 0);
	CHECK_EQUAL(read(signals, &info, sizeof(info)), (ssize_t)sizeof(info));
	test_pass();
}
