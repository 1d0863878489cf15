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
	const struct mm_track *track;
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

/* ---- tracked memory ---- */

/* As many pages are looked at one by one rather than that another look begins behind them. */
#define SHORT (32 * PAGE_BYTES)

/* Where the page table is gone nothing may have been told of it. */
static int add_with_tables(int fd, uint64_t start, uint64_t end, struct span_vec *ret)
{
	while (start < end) {
		uint64_t next = (start & ~(PAGEMAP_TABLE - 1)) + PAGEMAP_TABLE;
		uint64_t to = next < end ? next : end;

		if (pagemap_is_marked(fd, start) && span_add(ret, start, to) < 0)
			return -ENOMEM;
		start = to;
	}
	return 0;
}

/* Of the span, what is known to be there and not to have been written. */
static int find_same(int fd, const struct span *span, const struct mm_track *track,
		     struct span_vec *ret)
{
	const struct span_vec whole = {(struct span *)span, 1, 1};
	struct span_vec written = {}, here = {};
	size_t at = 0;
	int r = pagemap_find_written(fd, span, &written);

	if (r >= 0)
		r = spans_common(&track->sure, &whole, &here);
	vec_for_each (s, &here) {
		uint64_t start = s->start;

		while (r >= 0 && start < s->end) {
			uint64_t end = s->end;

			while (at < written.n && written.v[at].end <= start)
				at++;
			if (at < written.n && written.v[at].start <= start) {
				start = written.v[at].end;
				continue;
			}
			if (at < written.n && written.v[at].start < end)
				end = written.v[at].start;
			if (end - start >= SHORT)
				r = track->tells_holes ? span_add(ret, start, end)
						       : add_with_tables(fd, start, end, ret);
			start = end;
		}
	}
	vec_free(&written);
	vec_free(&here);
	return r;
}

static int add_same(struct part *p, const struct span *s)
{
	struct page_span *page = vec_push(&p->pages);

	if (!page)
		return -ENOMEM;
	*page = (struct page_span){s->start, s->end};
	return span_add(&p->unwritten, s->start, s->end);
}

/* A look at each page takes 3 ms per GiB. Where a look of ours has protected them before, there is
 * a faster one. */
static int scan_tracked(const struct scan *s, struct part *p, struct error *e)
{
	const struct span *span = &p->tracked;
	struct span_vec same = {};
	uint64_t at = span->start;
	int r = 0;

	if (s->track->sure.n && find_same(s->fd, span, s->track, &same) < 0)
		vec_free(&same);
	for (size_t i = 0; r >= 0 && i <= same.n; i++) {
		const struct span rest = {at, i < same.n ? same.v[i].start : span->end};

		if (rest.start < rest.end)
			r = pagemap_scan_tracked(s->fd, &rest, &p->pages, &p->unwritten, e);
		if (r < 0 || i == same.n)
			break;
		if (add_same(p, &same.v[i]) < 0)
			r = no_memory(e);
		at = same.v[i].end;
	}
	vec_free(&same);
	return r;
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
			r = scan_tracked(s, p, &e);
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
	unsigned int most, n = 0;
	pthread_t helpers[HELPERS_MOST];
	sigset_t all, old;

	if (s->parts.n < PARTS_MANY) {
		work(s);
		return;
	}
	most = pool_jobs(jobs) - 1;
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
	_cleanup_(scan_free) struct scan s = {
		.fd = fd, .track = m->track, .lock = PTHREAD_MUTEX_INITIALIZER};

	if (cut(&s, m) < 0)
		return no_memory(e);
	run(&s, c->jobs);
	if (s.failed) {
		*e = s.error;
		return s.failed;
	}
	return join(&s, &m->pages, ret_unwritten) < 0 ? no_memory(e) : 0;
}
