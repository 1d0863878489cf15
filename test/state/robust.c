/* SPDX-License-Identifier: Apache-2.0 */
/* Robust futexes: who dies after a restart holding a mutex leaves it to the next, marked. */
#include "harness.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct shared {
	pthread_mutex_t by_thread, by_process;
	volatile int holding;
} * shared;

static void make(pthread_mutex_t *mutex, int pshared)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setpshared(&attr, pshared);
	CHECK(!pthread_mutex_init(mutex, &attr));
}

static void *thread(void *arg)
{
	CHECK(!pthread_mutex_lock(&shared->by_thread));
	__sync_fetch_and_add(&shared->holding, 1);
	test_hold();
	if (test_break(1))
		pthread_mutex_unlock(&shared->by_thread);
	/* Ends without unlocking. */
	return NULL;
}

static int process(void *arg)
{
	CHECK(!pthread_mutex_lock(&shared->by_process));
	__sync_fetch_and_add(&shared->holding, 1);
	test_hold();
	if (test_break(2))
		pthread_mutex_unlock(&shared->by_process);
	return 4;
}

static void *wait_process(void *arg)
{
	CHECK_EQUAL(pthread_mutex_lock(&shared->by_process), EOWNERDEAD);
	CHECK(!pthread_mutex_consistent(&shared->by_process));
	CHECK(!pthread_mutex_unlock(&shared->by_process));
	return NULL;
}

int main(void)
{
	pthread_t holder, waiter;
	pid_t pid;

	test_init();
	shared = test_shared(4096);
	make(&shared->by_thread, PTHREAD_PROCESS_PRIVATE);
	make(&shared->by_process, PTHREAD_PROCESS_SHARED);
	pid = test_fork(process, NULL);
	CHECK(!pthread_create(&holder, NULL, thread, NULL));
	while (shared->holding < 2)
		usleep(1000);
	/* One waits already when the checkpoint comes. */
	CHECK(!pthread_create(&waiter, NULL, wait_process, NULL));
	usleep(5000);
	test_wait();
	CHECK(!pthread_join(holder, NULL));
	CHECK_EQUAL(pthread_mutex_lock(&shared->by_thread), EOWNERDEAD);
	CHECK(!pthread_mutex_consistent(&shared->by_thread));
	CHECK(!pthread_mutex_unlock(&shared->by_thread));
	test_reap(pid, 4);
	CHECK(!pthread_join(waiter, NULL));
	test_pass();
}
