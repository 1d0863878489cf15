/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX timers: ids, clocks, how they notify, how much is left. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

struct timer {
	int id, clock;
	struct itimerspec before;
	double armed; /* when */
};

#define COUNT 6
static struct timer timers[COUNT] = {
	{.clock = CLOCK_MONOTONIC},	     {.clock = CLOCK_REALTIME},
	{.clock = CLOCK_BOOTTIME},	     {.clock = CLOCK_MONOTONIC},
	{.clock = CLOCK_PROCESS_CPUTIME_ID}, {.clock = CLOCK_THREAD_CPUTIME_ID},
};

static volatile pid_t tid;
static volatile int end;

static void *thread(void *arg)
{
	struct timespec none = {0, 0}, second = {5, 0};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	tid = syscall(SYS_gettid);
	test_hold();
	while (!end)
		usleep(1000);
	/* To this thread, and to no other. */
	CHECK_EQUAL(sigtimedwait(&set, &info, &second), SIGRTMIN + 3);
	CHECK_EQUAL(info.si_code, SI_TIMER);
	CHECK_EQUAL(info.si_value.sival_int, 1003);
	CHECK_EQUAL(info.si_timerid, timers[3].id);
	while (sigtimedwait(&set, &info, &none) > 0)
		;
	return NULL;
}

static double seconds(struct timespec at)
{
	return at.tv_sec + at.tv_nsec / 1e9;
}

/* Each has four lines in /proc/self/timers. */
static char *end_of_timer(char *at)
{
	for (int lines = 0; *at && lines < 4; at++)
		lines += *at == '\n';
	return at;
}

static void make(int i)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL,
				 .sigev_signo = SIGRTMIN + i,
				 .sigev_value.sival_int = 1000 + i};
	int unused, id;

	if (i == 2)
		event.sigev_notify = SIGEV_NONE;
	if (i == 3) {
		event.sigev_notify = SIGEV_THREAD_ID;
		event.sigev_notify_thread_id = tid;
	}
	/* Gaps in the numbers. */
	CHECK(!syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, &unused));
	CHECK(!syscall(SYS_timer_create, timers[i].clock, &event, &id));
	CHECK(!syscall(SYS_timer_delete, unused));
	timers[i].id = id;
}

int main(void)
{
	struct itimerspec value = {{0, 1000 * 1000}, {0, 1000 * 1000}}, now,
			  none = {{0, 0}, {0, 0}};
	char before[4096], after[4096];
	int spare;
	pthread_t other;
	sigset_t all;
	double passed;

	test_init();
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	CHECK(!pthread_create(&other, NULL, thread, NULL));
	while (!tid)
		usleep(1000);
	for (int i = 0; i < COUNT; i++)
		make(i);
	for (int i = 1; i < COUNT; i++) { /* the first is not armed */
		struct itimerspec set = {{3 + i, 77}, {90000 + i, 0}};

		timers[i].armed = test_now();
		CHECK(!syscall(SYS_timer_settime, timers[i].id, 0, &set, NULL));
		CHECK(!syscall(SYS_timer_gettime, timers[i].id, &timers[i].before));
	}
	test_read("/proc/self/timers", before, sizeof(before));

	test_wait();
	if (test_break(1))
		timers[2].before.it_value.tv_sec -= 80000;
	if (test_break(2))
		syscall(SYS_timer_delete, timers[5].id);
	test_read("/proc/self/timers", after, sizeof(after));
	/* In any order. */
	CHECK_EQUAL(strlen(after), strlen(before));
	for (char *at = before; *at; at = end_of_timer(at)) {
		int length = (int)(end_of_timer(at) - at);
		char one[256];

		snprintf(one, sizeof(one), "%.*s", length, at);
		CHECKF(strstr(after, one), "lost: %s now: %s", one, after);
	}
	for (int i = 0; i < COUNT; i++) {
		CHECK(!syscall(SYS_timer_gettime, timers[i].id, &now));
		CHECK_EQUAL(now.it_interval.tv_sec, timers[i].before.it_interval.tv_sec);
		CHECK_EQUAL(now.it_interval.tv_nsec, timers[i].before.it_interval.tv_nsec);
		/* Two threads spend processor time twice as fast as time passes. */
		passed = timers[i].armed ? 2 * (test_now() - timers[i].armed) : 0;
		CHECKF(seconds(now.it_value) <= seconds(timers[i].before.it_value) + 0.01 &&
			       seconds(now.it_value) >=
				       seconds(timers[i].before.it_value) - passed - 0.01,
		       "timer %d: %f s are left, %f were", i, seconds(now.it_value),
		       seconds(timers[i].before.it_value));
	}
	CHECK(!syscall(SYS_timer_settime, timers[3].id, 0, &value, NULL));
	end = 1;
	CHECK(!pthread_join(other, NULL));
	CHECK(!syscall(SYS_timer_settime, timers[3].id, 0, &none, NULL));
	/* A new one gets a number of its own. */
	CHECK(!syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, &spare));
	for (int i = 0; i < COUNT; i++)
		CHECK(spare != timers[i].id);
	for (int i = 0; i < COUNT; i++)
		CHECK(!syscall(SYS_timer_delete, timers[i].id));
	test_pass();
}
