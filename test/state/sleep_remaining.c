/* SPDX-License-Identifier: Apache-2.0 */
/* How much of a long sleep is left is known after a restart: a handler ends it, and we look. */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LONG  100000.0
#define SLEPT 0.15
#define COUNT 4

static volatile pid_t tids[COUNT];
static double begin;

static void handler(int sig)
{
}

static void expect(const char *what, double left)
{
	/* A sleep begun anew would have all of it left. */
	CHECKF(left <= LONG - SLEPT + 0.001 && left > LONG - 0.001 - (test_now() - begin),
	       "%s: %f s of %f are left", what, left, LONG);
}

static void *run(void *arg)
{
	struct timespec time = {(time_t)LONG, 0}, left = {-1, 0};
	struct timeval value = {(time_t)LONG, 0};
	int i = (int)(intptr_t)arg;

	tids[i] = syscall(SYS_gettid);
	switch (i) {
	case 0:
		CHECK(syscall(SYS_nanosleep, &time, &left) < 0 && errno == EINTR);
		expect("nanosleep", left.tv_sec + left.tv_nsec / 1e9);
		break;
	case 1:
		CHECK(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &time, &left) < 0 &&
		      errno == EINTR);
		expect("clock_nanosleep", left.tv_sec + left.tv_nsec / 1e9);
		break;
	case 2:
		CHECK(syscall(SYS_select, 0, NULL, NULL, NULL, &value) < 0 && errno == EINTR);
		expect("select", value.tv_sec + value.tv_usec / 1e6);
		break;
	case 3:
		CHECK(syscall(SYS_ppoll, NULL, 0, &time, NULL, 8) < 0 && errno == EINTR);
		expect("ppoll", time.tv_sec + time.tv_nsec / 1e9);
		break;
	}
	return NULL;
}

int main(void)
{
	static const long calls[COUNT] = {SYS_nanosleep, SYS_clock_nanosleep, SYS_select,
					  SYS_ppoll};
	struct sigaction action = {.sa_handler = handler};
	pthread_t threads[COUNT];

	test_init();
	sigaction(SIGUSR1, &action, NULL);
	begin = test_now();
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_create(&threads[i], NULL, run, (void *)(intptr_t)i));
	for (int i = 0; i < COUNT; i++) {
		while (!tids[i])
			usleep(100);
		test_until_in(tids[i], calls[i]);
	}
	test_sleep(SLEPT);
	test_wait();
	for (int i = 0; i < COUNT; i++) {
		/* Nobody has come back by itself. */
		if (test_break(1) && i == 2)
			tgkill(getpid(), tids[i], SIGUSR1), usleep(10000);
		CHECK(tgkill(getpid(), tids[i], SIGUSR1) == 0);
		CHECK(!pthread_join(threads[i], NULL));
	}
	test_pass();
}
