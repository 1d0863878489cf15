/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timerfds of each clock, absolute, periodic and cancelled by steps of the clock; eventfds that are
 * full and empty, with a reader and a writer that wait; a signalfd with signals to be read.
 */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define FAR 100000 /* s */

static const struct {
	int clock, flags;
	double value, interval;
} timers[] = {
	{CLOCK_REALTIME, 0, FAR, 0},
	{CLOCK_REALTIME, TFD_TIMER_ABSTIME, FAR, 50},
	{CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, FAR, 0},
	{CLOCK_MONOTONIC, 0, FAR, 3},
	{CLOCK_MONOTONIC, TFD_TIMER_ABSTIME, FAR, 0},
	{CLOCK_BOOTTIME, TFD_TIMER_ABSTIME, FAR, 0.5},
	{CLOCK_REALTIME_ALARM, 0, FAR, 0},
	{CLOCK_REALTIME_ALARM, TFD_TIMER_ABSTIME, FAR, 0},
	{CLOCK_BOOTTIME_ALARM, TFD_TIMER_ABSTIME, FAR, 7},
	/* Expired: once, often, and at a time long past. */
	{CLOCK_MONOTONIC, 0, 0.001, 0},
	{CLOCK_MONOTONIC, 0, 0.001, 0.001},
	{CLOCK_MONOTONIC, TFD_TIMER_ABSTIME, -10, 0},
	{CLOCK_MONOTONIC, 0, 0, 0},
	/* Not set, and told how often it would come. */
	{CLOCK_MONOTONIC, 0, 0, 6},
};
#define COUNT	(int)(sizeof(timers) / sizeof(timers[0]))
#define EXPIRED 9
#define OFTEN	10

static int full, hungry;

static struct timespec to_time(double s)
{
	return (struct timespec){(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
}

static int make_timer(int i)
{
	int clock = timers[i].clock == CLOCK_REALTIME_ALARM   ? CLOCK_REALTIME
		    : timers[i].clock == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME
							      : timers[i].clock;
	double value = timers[i].value;
	struct itimerspec its = {.it_interval = to_time(timers[i].interval)};
	int fd = timerfd_create(timers[i].clock, TFD_NONBLOCK);
	struct timespec now;

	/* A clock that wakes the machine is for those who may do so. */
	if (fd < 0)
		return -1;
	clock_gettime(clock, &now);
	if (timers[i].flags & TFD_TIMER_ABSTIME)
		value += (double)now.tv_sec;
	its.it_value = to_time(value);
	CHECK(!timerfd_settime(fd, timers[i].flags, &its, NULL));
	return fd;
}

static void check_timer(int i, int fd)
{
	struct itimerspec its;
	double left, interval;
	uint64_t n = 0;

	CHECK(!timerfd_gettime(fd, &its));
	left = (double)its.it_value.tv_sec + (double)its.it_value.tv_nsec / 1e9;
	interval = (double)its.it_interval.tv_sec + (double)its.it_interval.tv_nsec / 1e9;
	CHECKF(interval > timers[i].interval - 1e-6 && interval < timers[i].interval + 1e-6,
	       "timer %d: its interval is %f", i, interval);
	if (i < EXPIRED) {
		CHECKF(left > FAR * 0.7 && left <= FAR + 1, "timer %d: %f s are left", i, left);
		CHECK(read(fd, &n, 8) < 0 && errno == EAGAIN);
		return;
	}
	if (timers[i].value == 0) {
		CHECK(read(fd, &n, 8) < 0 && errno == EAGAIN);
		return;
	}
	CHECK_EQUAL(read(fd, &n, 8), 8);
	CHECKF(i == OFTEN ? n >= 20 : n == 1, "timer %d has expired %llu times", i,
	       (unsigned long long)n);
}

static int reader(void *arg)
{
	eventfd_t n;

	CHECK(!eventfd_read(hungry, &n));
	CHECK_EQUAL(n, 5);
	return 2;
}

static int writer(void *arg)
{
	CHECK(!eventfd_write(full, 7));
	return 3;
}

int main(void)
{
	struct signalfd_siginfo info;
	int fds[COUNT], semaphore, signals;
	union sigval value = {.sival_int = 4711};
	pid_t pids[2];
	sigset_t set;
	eventfd_t n;

	test_init();
	for (int i = 0; i < COUNT; i++)
		fds[i] = make_timer(i);
	full = eventfd(0, 0);
	hungry = eventfd(0, 0);
	semaphore = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
	CHECK(!eventfd_write(full, UINT64_MAX - 1));
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
	signals = signalfd(-1, &set, SFD_NONBLOCK);
	CHECK(!sigqueue(getpid(), SIGRTMIN, value));
	pids[0] = test_fork(reader, NULL);
	pids[1] = test_fork(writer, NULL);
	test_until_in(pids[0], SYS_read);
	test_until_in(pids[1], SYS_write);
	usleep(30000);

	test_wait();
	if (test_break(1))
		CHECK(!eventfd_read(semaphore, &n));
	if (test_break(2))
		CHECK_EQUAL(read(fds[EXPIRED], &n, 8), 8);
	for (int i = 0; i < COUNT; i++)
		if (fds[i] >= 0)
			check_timer(i, fds[i]);
	for (int i = 0; i < 3; i++)
		CHECK(!eventfd_read(semaphore, &n) && n == 1);
	CHECK(eventfd_read(semaphore, &n) < 0 && errno == EAGAIN);
	CHECK_EQUAL(read(signals, &info, sizeof(info)), (ssize_t)sizeof(info));
	CHECK_EQUAL(info.ssi_int, 4711);
	CHECK(read(signals, &info, sizeof(info)) < 0 && errno == EAGAIN);
	CHECK(!eventfd_write(hungry, 5));
	test_reap(pids[0], 2);
	CHECK(!eventfd_read(full, &n));
	CHECK_EQUAL(n, UINT64_MAX - 1);
	test_reap(pids[1], 3);
	CHECK(!eventfd_read(full, &n));
	CHECK_EQUAL(n, 7);
	test_pass();
}
