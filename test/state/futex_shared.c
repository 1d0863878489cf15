/* SPDX-License-Identifier: Apache-2.0 */
/* Semaphores, condition variables and barriers between processes. */
#include "harness.h"

#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#define COUNT 4

static struct {
	sem_t semaphore;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	pthread_barrier_t barrier;
	int here, go, counted;
} * shared;

static int child(void *arg)
{
	int i = (int)(intptr_t)arg;

	__sync_fetch_and_add(&shared->here, 1);
	if (i % 2) {
		CHECK(!sem_wait(&shared->semaphore));
	} else {
		pthread_mutex_lock(&shared->lock);
		while (!shared->go)
			pthread_cond_wait(&shared->cond, &shared->lock);
		pthread_mutex_unlock(&shared->lock);
	}
	__sync_fetch_and_add(&shared->counted, 1);
	pthread_barrier_wait(&shared->barrier);
	return 6;
}

int main(void)
{
	pthread_barrierattr_t barrier_attr;
	pthread_mutexattr_t lock_attr;
	pthread_condattr_t cond_attr;
	pid_t pids[COUNT];

	test_init();
	shared = test_shared(4096);
	CHECK(!sem_init(&shared->semaphore, 1, 0));
	pthread_mutexattr_init(&lock_attr);
	pthread_mutexattr_setpshared(&lock_attr, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&shared->lock, &lock_attr);
	pthread_condattr_init(&cond_attr);
	pthread_condattr_setpshared(&cond_attr, PTHREAD_PROCESS_SHARED);
	pthread_cond_init(&shared->cond, &cond_attr);
	pthread_barrierattr_init(&barrier_attr);
	pthread_barrierattr_setpshared(&barrier_attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&shared->barrier, &barrier_attr, COUNT + 1);
	for (int i = 0; i < COUNT; i++)
		pids[i] = test_fork(child, (void *)(intptr_t)i);
	while (shared->here < COUNT)
		usleep(1000);
	usleep(3000);
	test_wait();
	CHECK_EQUAL(shared->counted, 0);
	for (int i = 0; i < COUNT / 2; i++)
		CHECK(!sem_post(&shared->semaphore));
	pthread_mutex_lock(&shared->lock);
	shared->go = 1;
	pthread_cond_broadcast(&shared->cond);
	pthread_mutex_unlock(&shared->lock);
	pthread_barrier_wait(&shared->barrier);
	CHECK_EQUAL(shared->counted, COUNT + !!test_break(1));
	for (int i = 0; i < COUNT; i++)
		test_reap(pids[i], 6);
	test_pass();
}
