/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Points in time of the monotonic clocks: where these go on from where they were (in a container),
 * all stay what they were; else none comes early.
 */
#include "harness.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define FAR    100000.0 /* s */
#define PERIOD 3000.0

static const int clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME};

static double now_by(int clock)
{
	struct timespec at;

	CHECK(!clock_gettime(clock, &at));
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void check(const char *what, int clock, double due, long call, int number)
{
	double most = due - now_by(clock), least, left;
	struct itimerspec its;

	CHECK(!syscall(call, number, &its));
	least = due - now_by(clock);
	left = (double)its.it_value.tv_sec + (double)its.it_value.tv_nsec / 1e9;
	CHECKF(left >= least - 0.001, "%s, clock %d: due in %f s, and not in %f", what, clock, left,
	       least);
	/* We were asked, and then the clock was looked at. */
	CHECKF(left <= most + 0.1 || !test_mode_is("container"),
	       "%s, clock %d: due in %f s, and not in %f", what, clock, left, most);
}

int main(void)
{
	double due[2], before[2];
	struct sigevent none = {.sigev_notify = SIGEV_NONE};
	int fds[2], ids[2];

	test_init();
	for (int i = 0; i < 2; i++) {
		struct itimerspec its = {{(time_t)PERIOD, 0}, {0, 0}};

		due[i] = (double)(long)now_by(clocks[i]) + FAR;
		its.it_value.tv_sec = (time_t)due[i];
		fds[i] = timerfd_create(clocks[i], 0);
		CHECK(fds[i] >= 0);
		CHECK(!timerfd_settime(fds[i], TFD_TIMER_ABSTIME, &its, NULL));
		CHECK(!syscall(SYS_timer_create, clocks[i], &none, &ids[i]));
		CHECK(!syscall(SYS_timer_settime, ids[i], TIMER_ABSTIME, &its, NULL));
		before[i] = now_by(clocks[i]);
	}
	test_wait();
	if (test_break(1))
		due[1] += 1;
	for (int i = 0; i < 2; i++) {
		CHECKF(now_by(clocks[i]) >= before[i], "clock %d was set back", clocks[i]);
		check("timerfd", clocks[i], due[i], SYS_timerfd_gettime, fds[i]);
		check("POSIX timer", clocks[i], due[i], SYS_timer_gettime, ids[i]);
	}
	test_pass();
}
