/* SPDX-License-Identifier: Apache-2.0 */
/* Every function of the vDSO tells what the system call tells; children that were forked have the
 * same. */
#include "harness.h"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static double seconds(struct timespec at)
{
	return at.tv_sec + at.tv_nsec / 1e9;
}

static void check(void)
{
	static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME,
					   CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID};
	struct timespec before, in, after, a, b;
	struct timeval value;

	for (int i = 0; i < 5; i++) {
		CHECK(!syscall(SYS_clock_gettime, clocks[i], &before));
		CHECK(!clock_gettime(clocks[i], &in));
		CHECK(!syscall(SYS_clock_gettime, clocks[i], &after));
		CHECKF(seconds(before) <= seconds(in) && seconds(in) <= seconds(after),
		       "clock %d: %f is not between %f and %f", clocks[i], seconds(in),
		       seconds(before), seconds(after));
	}
	CHECK(!clock_getres(CLOCK_MONOTONIC, &a));
	CHECK(!syscall(SYS_clock_getres, CLOCK_MONOTONIC, &b));
	CHECK_EQUAL(a.tv_nsec, b.tv_nsec);
	CHECK(!gettimeofday(&value, NULL));
	CHECK(time(NULL) - value.tv_sec < 5);
	CHECK(sched_getcpu() >= 0);
}

static int child(void *arg)
{
	check();
	test_hold();
	check();
	return 17;
}

int main(void)
{
	pid_t pid;

	test_init();
	check();
	pid = test_fork(child, NULL);
	test_wait();
	check();
	CHECK_EQUAL(time(NULL) > 0, !test_break(1));
	test_reap(pid, 17);
	test_pass();
}
