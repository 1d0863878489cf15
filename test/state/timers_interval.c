/* SPDX-License-Identifier: Apache-2.0 */
/* Interval timers: real, virtual, profiling; how much is left, and that they fire. */
#include "harness.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t fired[65];

static void handler(int sig)
{
	fired[sig]++;
}

static double left(const struct itimerval *value)
{
	return value->it_value.tv_sec + value->it_value.tv_usec / 1e6;
}

static int second(void *arg)
{
	struct itimerval value = {{0, 0}, {0, 400000}}, now;
	double begin = test_now();

	/* By alarm()'s own timer, once, soon. */
	signal(SIGALRM, handler);
	CHECK(!setitimer(ITIMER_REAL, &value, NULL));
	*(volatile int *)arg = 1;
	while (!fired[SIGALRM])
		usleep(1000);
	CHECKF(test_now() - begin >= 0.399, "the timer fired after %f s", test_now() - begin);
	CHECK(!getitimer(ITIMER_REAL, &now));
	CHECK_EQUAL(now.it_value.tv_sec + now.it_value.tv_usec, 0);
	return 3;
}

int main(void)
{
	static const int which[] = {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF};
	struct itimerval before[3], now;
	volatile int *ready;
	pid_t pid;

	test_init();
	ready = test_shared(4096);
	signal(SIGVTALRM, handler);
	signal(SIGPROF, handler);
	pid = test_fork(second, (void *)ready);
	for (int i = 0; i < 3; i++) {
		struct itimerval value = {{7 + i, 500 + i}, {100000 + i, 0}};

		CHECK(!setitimer(which[i], &value, NULL));
	}
	while (!*ready)
		usleep(1000);
	test_sleep(0.1);
	for (int i = 0; i < 3; i++)
		CHECK(!getitimer(which[i], &before[i]));
	test_wait();
	if (test_break(1))
		before[1].it_interval.tv_usec++;
	if (test_break(2))
		before[0].it_value.tv_sec -= 80000;
	for (int i = 0; i < 3; i++) {
		CHECK(!getitimer(which[i], &now));
		CHECK_EQUAL(now.it_interval.tv_sec, before[i].it_interval.tv_sec);
		CHECK_EQUAL(now.it_interval.tv_usec, before[i].it_interval.tv_usec);
		/* The kernel tells CPU time as it was accounted last. */
		CHECKF(left(&now) <= left(&before[i]) + (i ? 0.003 : 0.0001) &&
			       left(&now) > left(&before[i]) - test_duration(),
		       "timer %d: %f s are left, %f were", i, left(&now), left(&before[i]));
	}
	/* The virtual one still counts: make it fire soon. */
	now = (struct itimerval){{0, 0}, {0, 5000}};
	CHECK(!setitimer(ITIMER_VIRTUAL, &now, NULL));
	while (!fired[SIGVTALRM])
		;
	test_reap(pid, 3);
	test_pass();
}
