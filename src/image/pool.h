/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_POOL_H
#define REPRISE_IMAGE_POOL_H

#include <pthread.h>
#include <stdbool.h>

/*
 * Threads that help the calling thread with page contents. All state that they
 * share is under one lock; `step` is called with it held, does one piece of
 * work, for whose duration it drops the lock, and tells whether there was any.
 *
 * Threads are made when there is work that is worth them, not before: a process
 * with several threads may not change its user namespace, and a small image is written faster
 * without. They block all signals, so that none is taken away from the program.
 */
struct pool {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t *threads;
	unsigned int helpers; /* running */
	unsigned int wanted;
	unsigned int waiting;
	bool stop;
	bool (*step)(void *arg, bool helper);
	void *arg;
};

/* How many threads that are, at least 1. */
unsigned int pool_jobs(int jobs);
/* jobs counts the calling thread; 0: as many as there are processors for us. */
int pool_init(struct pool *p, int jobs, bool (*step)(void *arg, bool helper), void *arg);
/* Ends the threads once they are done with their step. */
void pool_destroy(struct pool *p);
/* Makes the threads unless they exist. Fewer, or none, is no failure: the caller works as well.
 * Lock not held. */
void pool_start(struct pool *p);
/* To be called with the lock held. */
void pool_changed(struct pool *p);
/* Waits for pool_changed(), but not for long, so that the caller can report progress. */
void pool_wait(struct pool *p);

#endif
