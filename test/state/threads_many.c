/* SPDX-License-Identifier: Apache-2.0 */
/* Two hundred threads that wait for each other, and that go on counting. */
#include "harness.h"

#include <pthread.h>
#include <unistd.h>

#define COUNT 200

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_here = PTHREAD_COND_INITIALIZER, may_go = PTHREAD_COND_INITIALIZER;
static int here, go, turns;

static void *run(void *arg)
{
	pthread_mutex_lock(&lock);
	if (++here == COUNT)
		pthread_cond_signal(&all_here);
	while (!go)
		pthread_cond_wait(&may_go, &lock);
	turns++;
	pthread_mutex_unlock(&lock);
	return NULL;
}

int main(void)
{
	pthread_t threads[COUNT];
	pthread_attr_t attr;

	test_init();
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_create(&threads[i], &attr, run, NULL));
	pthread_mutex_lock(&lock);
	while (here < COUNT)
		pthread_cond_wait(&all_here, &lock);
	pthread_mutex_unlock(&lock);
	test_wait();
	pthread_mutex_lock(&lock);
	go = 1;
	pthread_cond_broadcast(&may_go);
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_join(threads[i], NULL));
	CHECK_EQUAL(turns, COUNT - !!test_break(1));
	test_pass();
}
