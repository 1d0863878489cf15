/* SPDX-License-Identifier: Apache-2.0 */
/* threads READY N: one process of N threads, every other in read() of a pipe, the rest at a futex.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "workload.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int ends[2];

static void *sleep_in_read(void *arg)
{
	char byte;

	while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
		;
	return arg;
}

static void *sleep_at_futex(void *arg)
{
	pthread_mutex_lock(&lock);
	return arg;
}

static int intact(void *arg)
{
	const pthread_t *thread = arg;

	return !*thread || pthread_kill(*thread, 0) == 0;
}

int main(int argc, char **argv)
{
	pthread_attr_t attributes;
	pthread_t last = 0;
	size_t n;

	need(argc == 3);
	n = parse_size(argv[2]);
	need(pipe(ends) == 0);
	answer_later();
	pthread_mutex_lock(&lock);
	need(pthread_attr_init(&attributes) == 0);
	need(pthread_attr_setstacksize(&attributes, 64 << 10) == 0);
	for (size_t i = 1; i < n; i++)
		need(pthread_create(&last, &attributes, i % 2 ? sleep_in_read : sleep_at_futex,
				    NULL) == 0);
	sleep_and_answer(argv[1], intact, &last);
}
