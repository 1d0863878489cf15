/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "image/pool.h"

#define POOL_JOBS_MAX 256
#define POOL_WAIT_NS  50000000

static unsigned int processors(void)
{
	cpu_set_t set;

	/* More than 1024 processors do not fit into the set: the call fails, and many it is. */
	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return POOL_JOBS_MAX / 2;
	return CPU_COUNT(&set);
}

unsigned int pool_jobs(int jobs)
{
	if (jobs <= 0)
		jobs = (int)processors();
	return jobs > POOL_JOBS_MAX ? POOL_JOBS_MAX : (unsigned int)jobs;
}

int pool_init(struct pool *p, int jobs, bool (*step)(void *arg, bool helper), void *arg)
{
	pthread_condattr_t attr;
	int r;

	*p = (struct pool){.step = step, .arg = arg};
	p->wanted = pool_jobs(jobs) - 1;
	r = pthread_mutex_init(&p->lock, NULL);
	if (r)
		return -r;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	r = pthread_cond_init(&p->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (r)
		pthread_mutex_destroy(&p->lock);
	return -r;
}

static void *pool_helper(void *arg)
{
	struct pool *p = arg;

	pthread_mutex_lock(&p->lock);
	while (!p->stop) {
		if (p->step(p->arg, true))
			continue;
		p->waiting++;
		pthread_cond_wait(&p->changed, &p->lock);
		p->waiting--;
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

void pool_start(struct pool *p)
{
	sigset_t all, old;

	if (p->threads || !p->wanted)
		return;
	p->threads = calloc(p->wanted, sizeof(*p->threads));
	if (!p->threads)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	while (p->helpers < p->wanted) {
		if (pthread_create(&p->threads[p->helpers], NULL, pool_helper, p))
			break;
		p->helpers++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void pool_changed(struct pool *p)
{
	if (p->waiting)
		pthread_cond_broadcast(&p->changed);
}

void pool_wait(struct pool *p)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += POOL_WAIT_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	p->waiting++;
	pthread_cond_timedwait(&p->changed, &p->lock, &until);
	p->waiting--;
}

void pool_destroy(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	for (unsigned int i = 0; i < p->helpers; i++)
		pthread_join(p->threads[i], NULL);
	free(p->threads);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
}
