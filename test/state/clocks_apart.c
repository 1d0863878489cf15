/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child in a time namespace of its own, with timers there, a grandchild that is back in the first
 * one, and a time namespace that nobody is in. Its clocks go on: they do not count the time away.
 *
 * needs: root
 * not-in: cycles: a timer is due after a time that has passed by then
 */
#include "harness.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define AHEAD 50000 /* s */
#define EMPTY (-1)  /* a clock cannot begin before 0, however young the machine is (ERANGE) */
#define LONG  1000  /* s; nothing here takes a half of it */
#define DUE   1.0   /* s */

static int root_ns;
static time_t period; /* s */
static struct {
	volatile bool made, inside;
	double ahead; /* of the child's namespace */
} * shared;

static double seconds(const struct timespec *at)
{
	return (double)at->tv_sec + (double)at->tv_nsec / 1e9;
}

static void make_ahead(long monotonic, long boottime)
{
	char text[80];

	if (unshare(CLONE_NEWTIME) < 0)
		test_skip("no time namespace can be made: %s", strerror(errno));
	snprintf(text, sizeof(text), "monotonic %ld 0\nboottime %ld 0\n", monotonic, boottime);
	test_write("/proc/self/timens_offsets", text, strlen(text));
}

static void enter(int fd)
{
	CHECK(fd >= 0);
	CHECK(!setns(fd, CLONE_NEWTIME));
	CHECK(!close(fd));
}

/* By how much its clocks are ahead of the machine's. */
static double offset(void)
{
	char text[256];
	struct timespec at = {0, 0};

	test_read("/proc/self/timens_offsets", text, sizeof(text));
	CHECK_EQUAL(sscanf(text, "monotonic %ld %ld", &at.tv_sec, &at.tv_nsec), 2);
	return seconds(&at);
}

/* In the namespace of the root. */
static int grandchild(void *arg)
{
	struct stat own, root;

	CHECK(!setns(root_ns, CLONE_NEWTIME));
	shared->inside = true;
	test_hold();
	CHECK(!stat("/proc/self/ns/time", &own) && !fstat(root_ns, &root));
	CHECK_EQUAL(own.st_ino, root.st_ino);
	return 0;
}

static int child(void *arg)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	struct itimerspec late = {{0, 0}, {0, 0}}, value = {{0, 0}, {0, 0}};
	struct timespec now, soon = {5, 0};
	struct sigevent none = {.sigev_notify = SIGEV_NONE};
	int pending, left, timer;
	siginfo_t info;
	uint64_t ticks;
	double due, was = 0;
	sigset_t set;
	pid_t pid;

	/* The kernel knows no time before the machine was started (timens_ktime_to_host()), which
	 * is later than the clock of a container says. */
	CHECK(!clock_gettime(CLOCK_MONOTONIC, &now));
	period = (time_t)((seconds(&now) - offset()) / 11);
	if (period > LONG)
		period = LONG;
	if (period < 10)
		test_skip("the machine was started a moment ago");
	make_ahead(AHEAD, AHEAD);
	late.it_interval.tv_sec = period;
	enter(open("/proc/self/ns/time_for_children", O_RDONLY));
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* Expired 10 times, and due in half a period. */
	CHECK(!syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &pending));
	CHECK(!clock_gettime(CLOCK_MONOTONIC, &late.it_value));
	late.it_value.tv_sec -= 9 * period + period / 2;
	CHECK(!syscall(SYS_timer_settime, pending, TIMER_ABSTIME, &late, NULL));
	CHECK(!syscall(SYS_timer_create, CLOCK_BOOTTIME, &none, &left));
	value.it_value.tv_sec = 2 * period;
	CHECK(!syscall(SYS_timer_settime, left, 0, &value, NULL));
	timer = timerfd_create(CLOCK_MONOTONIC, 0);
	CHECK(!clock_gettime(CLOCK_MONOTONIC, &value.it_value));
	value.it_value.tv_sec += (time_t)DUE;
	due = seconds(&value.it_value);
	CHECK(!timerfd_settime(timer, TFD_TIMER_ABSTIME, &value, NULL));
	pid = test_fork(grandchild, NULL);

	while (!test_going()) {
		CHECK(!clock_gettime(CLOCK_MONOTONIC, &now));
		CHECKF(seconds(&now) >= was, "set back from %f to %f", was, seconds(&now));
		was = seconds(&now);
		usleep(1000);
	}
	CHECK(!clock_gettime(CLOCK_MONOTONIC, &now));
	shared->ahead = offset();
	CHECK_EQUAL(read(timer, &ticks, sizeof(ticks)), sizeof(ticks));
	CHECK_EQUAL(ticks, 1);
	CHECK(!clock_gettime(CLOCK_MONOTONIC, &now));
	if (test_break(2))
		due += period;
	CHECKF(seconds(&now) >= due && seconds(&now) < due + period / 2, "due at %f, told at %f",
	       due, seconds(&now));
	CHECK(!syscall(SYS_timer_gettime, left, &value));
	CHECKF(value.it_value.tv_sec > period && value.it_value.tv_sec < 2 * period,
	       "%ld s are left", (long)value.it_value.tv_sec);
	CHECK_EQUAL(sigtimedwait(&set, &info, &soon), SIGRTMIN);
	if (test_break(3))
		info.si_overrun++;
	CHECK_EQUAL(info.si_overrun, 9);
	CHECK(!syscall(SYS_timer_gettime, pending, &value));
	CHECKF(value.it_value.tv_sec > 0 && value.it_value.tv_sec < period / 2, "%ld s to the next",
	       (long)value.it_value.tv_sec);
	test_reap(pid, 0);
	return 0;
}

/* Makes one for its children, and has none. */
static int maker(void *arg)
{
	make_ahead(EMPTY, 3 * AHEAD);
	shared->made = true;
	for (;;)
		pause();
	return 0;
}

static int visitor(void *arg)
{
	enter(*(int *)arg);
	if (test_break(1))
		shared->ahead++;
	CHECKF(offset() - shared->ahead > EMPTY - AHEAD - 0.001 &&
		       offset() - shared->ahead < EMPTY - AHEAD + 0.001,
	       "ahead by %f and %f s", offset(), shared->ahead);
	return 0;
}

int main(void)
{
	char path[64];
	int empty, status;
	pid_t pid;

	test_init();
	if (access("/proc/self/timens_offsets", F_OK))
		test_skip("no time namespaces");
	shared = test_shared(sizeof(*shared));
	root_ns = open("/proc/self/ns/time", O_RDONLY);
	pid = test_fork(maker, NULL);
	while (!shared->made)
		usleep(1000);
	snprintf(path, sizeof(path), "/proc/%d/ns/time_for_children", pid);
	empty = open(path, O_RDONLY);
	CHECK(empty >= 0 && !kill(pid, SIGKILL));
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	pid = test_fork(child, NULL);
	while (!shared->inside)
		usleep(1000);
	test_wait();
	test_reap(pid, 0);
	test_reap(test_fork(visitor, &empty), 0);
	test_pass();
}
