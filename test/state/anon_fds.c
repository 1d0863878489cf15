/* SPDX-License-Identifier: Apache-2.0 */
/* timerfd, signalfd, pidfd, inotify. */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int timer(int clock, int flags, double value, double interval)
{
	struct itimerspec its = {
		.it_value = {(time_t)value, (long)((value - (double)(time_t)value) * 1e9)},
		.it_interval = {(time_t)interval,
				(long)((interval - (double)(time_t)interval) * 1e9)},
	};
	int fd = timerfd_create(clock, TFD_NONBLOCK);

	CHECK(fd >= 0);
	CHECK(!timerfd_settime(fd, flags, &its, NULL));
	return fd;
}

static double left(int fd)
{
	struct itimerspec its;

	CHECK(!timerfd_gettime(fd, &its));
	return (double)its.it_value.tv_sec + (double)its.it_value.tv_nsec / 1e9;
}

static double seconds(const struct timespec *at)
{
	return (double)at->tv_sec + (double)at->tv_nsec / 1e9;
}

static int sleeper(void *arg)
{
	for (;;)
		pause();
	return 0;
}

static int ended(void *arg)
{
	return 3;
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

int main(void)
{
	int once, periodic, wall, expired, off, signals, epoll, watcher, wd[2], alive, dead, zombie;
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 5};
	struct signalfd_siginfo info;
	struct timespec now;
	char buf[4096];
	sigset_t set;
	pid_t pid, corpse, gone;
	double due, begin, is;
	uint64_t n;

	test_init();
	clock_gettime(CLOCK_REALTIME, &now);
	due = (double)now.tv_sec + 200000;
	begin = test_now();
	once = timer(CLOCK_MONOTONIC, 0, 100000, 0);
	periodic = timer(CLOCK_BOOTTIME, 0, 0.01, 50000);
	wall = timer(CLOCK_REALTIME, TFD_TIMER_ABSTIME, due, 0);
	expired = timer(CLOCK_MONOTONIC, 0, 0.001, 0);
	off = timer(CLOCK_MONOTONIC, 0, 0, 0);
	usleep(50000);

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 2);
	CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	epoll = epoll_create1(0);
	CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, signals, &event));

	test_write("watched", "1", 1);
	watcher = inotify_init1(IN_NONBLOCK);
	CHECK_EQUAL(inotify_add_watch(watcher, "/", IN_DELETE), 1);
	wd[0] = inotify_add_watch(watcher, ".", IN_CREATE);
	wd[1] = inotify_add_watch(watcher, "watched", IN_MODIFY);
	CHECK(!inotify_rm_watch(watcher, 1));
	CHECK(read(watcher, buf, sizeof(buf)) > 0); /* IN_IGNORED */

	pid = test_fork(sleeper, NULL);
	alive = (int)syscall(SYS_pidfd_open, pid, 0);
	corpse = test_fork(ended, NULL);
	zombie = (int)syscall(SYS_pidfd_open, corpse, 0);
	test_until_state(corpse, 'Z');
	gone = test_fork(ended, NULL);
	dead = (int)syscall(SYS_pidfd_open, gone, 0);
	test_reap(gone, 3);

	test_wait();
	if (test_break(1))
		CHECK_EQUAL(read(expired, &n, 8), 8);
	/* By the clocks: no more has been used than has passed. */
	is = left(once);
	CHECKF(is < 100000 && is > 100000 - (test_now() - begin), "%f s are left", is);
	is = left(periodic);
	CHECKF(is < 50000 && is > 50000 - (test_now() - begin), "%f s are left", is);
	clock_gettime(CLOCK_REALTIME, &now);
	is = left(wall);
	CHECKF(is <= due - seconds(&now) + 0.001, "%f s are left", is);
	clock_gettime(CLOCK_REALTIME, &now);
	CHECKF(is >= due - seconds(&now) - 0.001, "%f s are left", is);
	CHECK_EQUAL(read(periodic, &n, 8), 8);
	CHECK_EQUAL(n, 1);
	CHECK_EQUAL(read(expired, &n, 8), 8);
	CHECK_EQUAL(n, 1);
	CHECK(read(off, &n, 8) < 0 && errno == EAGAIN);

	CHECK(read(signals, &info, sizeof(info)) < 0 && errno == EAGAIN);
	CHECK_EQUAL(epoll_wait(epoll, &event, 1, 0), 0);
	kill(getpid(), SIGUSR1);
	CHECK_EQUAL(epoll_wait(epoll, &event, 1, 5000), 1);
	CHECK_EQUAL(event.data.u64, 5);
	CHECK_EQUAL(read(signals, &info, sizeof(info)), (ssize_t)sizeof(info));
	CHECK_EQUAL(info.ssi_signo, SIGUSR1);

	test_write("watched", "2", 1);
	snprintf(buf, sizeof(buf), "new-%d-%f", getpid(), test_now());
	test_write(buf, "", 0);
	CHECK(read(watcher, buf, sizeof(buf)) > 0);
	{
		const struct inotify_event *ev = (const void *)buf;

		CHECKF(ev->wd == wd[1] && (ev->mask & IN_MODIFY), "wd %d, mask %x", ev->wd,
		       ev->mask);
	}
	CHECK_EQUAL(inotify_add_watch(watcher, "/", IN_DELETE), 4);

	CHECK(readable(dead));
	CHECK(readable(zombie));
	CHECK(!readable(alive));
	CHECK(!syscall(SYS_pidfd_send_signal, alive, SIGKILL, NULL, 0));
	CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
	CHECK(readable(alive));
	CHECK(syscall(SYS_pidfd_send_signal, dead, 0, NULL, 0) < 0 && errno == ESRCH);
	test_reap(corpse, 3);
	test_pass();
}
