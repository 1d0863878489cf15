/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "mm/mm.h"
#include "mm/state.h"

/*
 * Of a tree of many processes, reading their mappings is a sixth of all work, and the part of it
 * that asks nothing of the tasks: a second thread reads them, some processes ahead of the first.
 */

#define WORTH_IT   4  /* processes; a thread costs as much as reading one */
#define AHEAD_MOST 32 /* that are read and not taken: the text of each may be large */

struct ahead_item {
	pid_t tid;
	bool done;
	int r;
	struct vma_list list;
	struct error e;
};

struct mm_ahead {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int proc_fd;
	VEC(struct ahead_item) items; /* in the order in which they are taken */
	size_t taken;		      /* those before it are taken, or were passed over */
	bool stop;
};

static void *reader(void *arg)
{
	struct mm_ahead *a = arg;

	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; i < a->items.n && !a->stop; i++) {
		struct ahead_item *item = &a->items.v[i];

		while (i >= a->taken + AHEAD_MOST && !a->stop)
			pthread_cond_wait(&a->changed, &a->lock);
		if (a->stop)
			break;
		pthread_mutex_unlock(&a->lock);
		item->r = vmas_read(a->proc_fd, item->tid, "smaps", &item->list, &item->e);
		pthread_mutex_lock(&a->lock);
		item->done = true;
		pthread_cond_signal(&a->changed);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

static int list_items(const struct checkpoint *c, struct mm_ahead *a)
{
	VEC(bool) seen = {};
	int r = 0;

	vec_for_each (p, &c->processes) {
		struct ahead_item *item;

		if (!p->mm || p->frozen->zombie)
			continue;
		while (r == 0 && seen.n <= p->mm)
			r = vec_push(&seen) ? 0 : -ENOMEM;
		if (r < 0)
			break;
		if (seen.v[p->mm])
			continue;
		seen.v[p->mm] = true;
		item = vec_push(&a->items);
		if (!item) {
			r = -ENOMEM;
			break;
		}
		item->tid = p->tid;
	}
	vec_free(&seen);
	return r;
}

static void release(struct mm_ahead *a)
{
	vec_for_each (item, &a->items)
		vma_list_free(&item->list);
	vec_free(&a->items);
	free(a);
}

void mm_ahead_begin(struct checkpoint *c)
{
	struct mm_ahead *a;

	/* of what was copied in advance the mappings are known (src/mm/known.c) */
	if (c->jobs == 1 || c->tracks || c->mm->ahead)
		return;
	a = calloc(1, sizeof(*a));
	if (!a)
		return;
	a->proc_fd = c->proc_fd;
	if (list_items(c, a) < 0 || a->items.n < WORTH_IT) {
		release(a);
		return;
	}
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->changed, NULL);
	if (pthread_create(&a->thread, NULL, reader, a) != 0) {
		release(a);
		return;
	}
	c->mm->ahead = a;
}

void mm_ahead_wait(struct checkpoint *c, const struct checkpoint_process *p)
{
	struct mm_ahead *a = c->mm->ahead;
	size_t i;

	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	for (i = a->taken; i < a->items.n && a->items.v[i].tid != p->tid; i++)
		;
	if (i < a->items.n) {
		a->taken = i;
		pthread_cond_signal(&a->changed);
		while (!a->items.v[i].done)
			pthread_cond_wait(&a->changed, &a->lock);
	}
	pthread_mutex_unlock(&a->lock);
}

int mm_ahead_take(struct checkpoint *c, const struct checkpoint_process *p, struct vma_list *ret,
		  struct error *e)
{
	struct mm_ahead *a = c->mm->ahead;
	struct ahead_item *item;

	mm_ahead_wait(c, p);
	if (!a || a->taken >= a->items.n || a->items.v[a->taken].tid != p->tid)
		return 0;
	item = &a->items.v[a->taken];
	if (item->r < 0) {
		*e = item->e;
		return item->r;
	}
	*ret = item->list;
	item->list = (struct vma_list){};
	pthread_mutex_lock(&a->lock);
	a->taken++;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
	return 1;
}

void mm_ahead_end(struct checkpoint *c)
{
	struct mm_ahead *a = c->mm ? c->mm->ahead : NULL;

	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->stop = true;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->changed);
	release(a);
	c->mm->ahead = NULL;
}
