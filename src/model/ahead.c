/* SPDX-License-Identifier: Apache-2.0 */
#include "model/ahead.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/warm.h"

#define AHEAD_MOST 32 /* items that are done and not asked for: each may hold a lot of text */

struct ahead {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* two wait for it, never both at once */
	size_t n, done, asked;
	size_t memory;
	void (*fn)(void *arg, size_t i);
	void *arg;
	bool stop;
};

static void *work(void *arg)
{
	struct ahead *a = arg;

	if (a->memory)
		warm_heap(a->memory);
	pthread_mutex_lock(&a->lock);
	while (!a->stop) {
		if (a->done >= a->n || a->done >= a->asked + AHEAD_MOST) {
			pthread_cond_wait(&a->changed, &a->lock);
			continue;
		}
		pthread_mutex_unlock(&a->lock);
		a->fn(a->arg, a->done);
		pthread_mutex_lock(&a->lock);
		a->done++;
		pthread_cond_signal(&a->changed);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

struct ahead *ahead_new(size_t memory)
{
	struct ahead *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->memory = memory;
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->changed, NULL);
	if (pthread_create(&a->thread, NULL, work, a) == 0)
		return a;
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->changed);
	free(a);
	return NULL;
}

void ahead_begin(struct ahead *a, size_t first, size_t n, void (*fn)(void *arg, size_t i),
		 void *arg)
{
	pthread_mutex_lock(&a->lock);
	a->n = n;
	a->done = a->asked = first;
	a->fn = fn;
	a->arg = arg;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
}

void ahead_wait(struct ahead *a, size_t i)
{
	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->asked = i;
	pthread_cond_signal(&a->changed);
	while (a->done <= i)
		pthread_cond_wait(&a->changed, &a->lock);
	pthread_mutex_unlock(&a->lock);
}

bool ahead_is_done(struct ahead *a, size_t i)
{
	bool done = false;

	if (a) {
		pthread_mutex_lock(&a->lock);
		done = i < a->done;
		pthread_mutex_unlock(&a->lock);
	}
	return done;
}

void ahead_end(struct ahead *a)
{
	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->stop = true;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->changed);
	free(a);
}
