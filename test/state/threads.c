/* SPDX-License-Identifier: Apache-2.0 */
/* Threads: ids, names, signal masks, local storage, timer slack, and that they can be joined. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNT 12

static __thread int local = 1234;
static __thread char buffer[5000];
static volatile int settled;
static pthread_barrier_t barrier;

struct thread {
	pthread_t handle;
	pid_t tid;
	void *self;
};

static void *run(void *arg)
{
	int i = (int)(intptr_t)arg;
	pid_t tid = syscall(SYS_gettid), tid_address = 0;
	char name[16], now[32], path[64];
	sigset_t set, is;
	pthread_t self = pthread_self();
	int *cleared;

	snprintf(name, sizeof(name), "thread-%d", i);
	pthread_setname_np(self, name);
	prctl(PR_SET_TIMERSLACK, 60000 + i);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + i);
	if (i % 2)
		sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	local = i;
	test_fill(buffer, sizeof(buffer), i);
	CHECK(!prctl(PR_GET_TID_ADDRESS, &cleared));
	__sync_fetch_and_add(&settled, 1);

	test_hold();
	if (test_break(1) && i == 3)
		prctl(PR_SET_NAME, "other");
	if (test_break(2) && i == 4)
		sigfillset(&is), pthread_sigmask(SIG_SETMASK, &is, NULL);
	CHECK_EQUAL(syscall(SYS_gettid), tid);
	CHECK(pthread_equal(self, pthread_self()));
	snprintf(path, sizeof(path), "/proc/self/task/%d/comm", tid);
	test_read(path, now, sizeof(now));
	now[strcspn(now, "\n")] = 0;
	CHECKF(!strcmp(now, name), "name of thread %d: %s", i, now);
	CHECK_EQUAL(prctl(PR_GET_TIMERSLACK), 60000 + i);
	pthread_sigmask(SIG_SETMASK, NULL, &is);
	for (int sig = 1; sig < 65; sig++)
		if (sig != 32 && sig != 33)
			CHECK_EQUAL(sigismember(&is, sig), sigismember(&set, sig));
	CHECK_EQUAL(local, i);
	CHECK_FILLED(buffer, sizeof(buffer), i);
	{
		int *address;

		CHECK(!prctl(PR_GET_TID_ADDRESS, &address));
		CHECK(address == cleared);
		tid_address = *address;
	}
	CHECK_EQUAL(tid_address, tid);
	pthread_barrier_wait(&barrier);
	return (void *)(intptr_t)(i * 3);
}

static void *late(void *arg)
{
	CHECK_EQUAL(local, 1234);
	return arg;
}

int main(void)
{
	struct thread threads[COUNT];
	pthread_t another;
	void *result;

	test_init();
	pthread_barrier_init(&barrier, NULL, COUNT);
	local = 99;
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_create(&threads[i].handle, NULL, run, (void *)(intptr_t)i));
	while (settled < COUNT)
		usleep(1000);
	test_wait();
	CHECK_EQUAL(local, 99);
	CHECK_EQUAL(syscall(SYS_gettid), syscall(SYS_getpid));
	/* The kernel clears the tid and wakes us when they end. */
	for (int i = 0; i < COUNT; i++) {
		CHECK(!pthread_join(threads[i].handle, &result));
		CHECK_EQUAL((intptr_t)result, i * 3);
	}
	CHECK(!pthread_create(&another, NULL, late, threads));
	CHECK(!pthread_join(another, &result));
	CHECK(result == threads);
	test_pass();
}
