/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "image/pool.h"
#include "mm/state.h"
#include "mm/track.h"

/*
 * The look at the page table, while the tasks stand still: 3 ms per GiB on one core. Of a large
 * address space it is shared out. The kernel holds the lock of the address space for reading only.
 */
#define PART	   (64ull << 20)
#define PARTS_MANY 3 /* from here on another thread is worth it */

enum { HELPERS_MOST = 7 };

/* One part of the address space, whose results follow those of the part before. */
struct part {
	struct span_vec where; /* untracked mappings, or else */
	struct span tracked;
	struct page_spans pages;
	struct span_vec unwritten;
};

struct scan {
	int fd;
	VEC(struct part) parts;
	atomic_size_t next;
	pthread_mutex_t lock; /* of what is below */
	int failed;
	struct error error;
};

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the page map");
}

static void scan_free(struct scan *s)
{
	vec_for_each (p, &s->parts) {
		vec_free(&p->where);
		vec_free(&p->pages);
		vec_free(&p->unwritten);
	}
	vec_free(&s->parts);
}

/* ---- parts ---- */

static int add_tracked(struct scan *s, const Reprise__Vma *v)
{
	for (uint64_t at = v->start; at < v->end;) {
		uint64_t next = (at & ~(PART - 1)) + PART;
		struct part *p = vec_push(&s->parts);

		if (!p)
			return -ENOMEM;
		p->tracked = (struct span){at, next < v->end ? next : v->end};
		at = p->tracked.end;
	}
	return 0;
}

static int add_untracked(struct scan *s, const Reprise__Vma *v)
{
	struct part *last = s->parts.n ? &s->parts.v[s->parts.n - 1] : NULL;
	struct span *span;

	if (!last || !last->where.n)
		last = vec_push(&s->parts);
	span = last ? vec_push(&last->where) : NULL;
	if (!span)
		return -ENOMEM;
	*span = (struct span){v->start, v->end};
	return 0;
}

static int cut(struct scan *s, const struct mm_state *m)
{
	for (size_t i = 0; i < m->msg->n_vmas; i++) {
		const Reprise__Vma *v = m->msg->vmas[i];
		int r = 0;

		if (!vma_keeps_pages(v))
			continue;
		if (v->kind == VMA_ANON && track_covers(m->track, v->start, v->end))
			r = add_tracked(s, v);
		else
			r = add_untracked(s, v);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- work ---- */

static void *work(void *arg)
{
	struct scan *s = arg;

	for (;;) {
		size_t i = s->next++;
		struct part *p = i < s->parts.n ? &s->parts.v[i] : NULL;
		struct error e = {};
		int r;

		if (!p)
			return NULL;
		if (p->where.n)
			r = pagemap_scan(s->fd, &p->where, &p->pages, &e);
		else
			r = pagemap_scan_tracked(s->fd, &p->tracked, &p->pages, &p->unwritten, &e);
		if (r >= 0)
			continue;
		pthread_mutex_lock(&s->lock);
		s->failed = r;
		s->error = e;
		pthread_mutex_unlock(&s->lock);
	}
}

/* Without helpers, if there can be none. */
static void run(struct scan *s, int jobs)
{
	unsigned int most = pool_jobs(jobs) - 1, n = 0;
	pthread_t helpers[HELPERS_MOST];
	sigset_t all, old;

	if (s->parts.n < PARTS_MANY)
		most = 0;
	if (most > HELPERS_MOST)
		most = HELPERS_MOST;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	while (n < most && pthread_create(&helpers[n], NULL, work, s) == 0)
		n++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	work(s);
	while (n)
		pthread_join(helpers[--n], NULL);
}

/* ---- results ---- */

static int join(const struct scan *s, struct page_spans *pages, struct span_vec *unwritten)
{
	vec_for_each (p, &s->parts) {
		vec_for_each (from, &p->pages) {
			struct page_span *last = pages->n ? &pages->v[pages->n - 1] : NULL;

			if (last && last->end == from->start && last->guard == from->guard) {
				last->end = from->end;
				continue;
			}
			last = vec_push(pages);
			if (!last)
				return -ENOMEM;
			*last = *from;
		}
		vec_for_each (from, &p->unwritten)
			if (span_add(unwritten, from->start, from->end) < 0)
				return -ENOMEM;
	}
	return 0;
}

int mm_scan(struct checkpoint *c, int fd, struct mm_state *m, struct span_vec *ret_unwritten,
	    struct error *e)
{
	_cleanup_(scan_free) struct scan s = {.fd = fd, .lock = PTHREAD_MUTEX_INITIALIZER};

	if (cut(&s, m) < 0)
		return no_memory(e);
	run(&s, c->jobs);
	if (s.failed) {
		*e = s.error;
		return s.failed;
	}
	return join(&s, &m->pages, ret_unwritten) < 0 ? no_memory(e) : 0;
}
