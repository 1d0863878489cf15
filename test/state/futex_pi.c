/* SPDX-License-Identifier: Apache-2.0 */
/* Mutexes with priority inheritance, held and waited for. */
#include "harness.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock;
static volatile pid_t waiter;
static volatile int released, taken;

static void *wait_for_it(void *arg)
{
	waiter = syscall(SYS_gettid);
	CHECK(!pthread_mutex_lock(&lock));
	CHECKF(released, "locked by two");
	taken = 1;
	CHECK(!pthread_mutex_unlock(&lock));
	return NULL;
}

int main(void)
{
	pthread_mutexattr_t attr;
	pthread_t thread;

	test_init();
	pthread_mutexattr_init(&attr);
	CHECK(!pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT));
	CHECK(!pthread_mutex_init(&lock, &attr));
	CHECK(!pthread_mutex_lock(&lock));
	CHECK(!pthread_create(&thread, NULL, wait_for_it, NULL));
	while (!waiter)
		usleep(1000);
	test_until_in(waiter, SYS_futex);
	test_wait();
	test_sleep(0.01);
	CHECK_EQUAL(taken, 0);
	if (!test_break(1))
		released = 1;
	CHECK(!pthread_mutex_unlock(&lock));
	CHECK(!pthread_join(thread, NULL));
	CHECK_EQUAL(taken, 1);
	CHECK(!pthread_mutex_lock(&lock));
	CHECK(!pthread_mutex_unlock(&lock));
	test_pass();
}
