/* SPDX-License-Identifier: Apache-2.0 */
/* Tracked memory is copied while its task runs: see track.h. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/pages.h"
#include "mm/track.h"

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory to track pages");
}

static int by_address(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Has it pages that a fork has left shared? They must not be taken apart by being read. */
static bool is_shared(const struct mm_track *t, uint64_t address)
{
	size_t low = bisect(t->vmas.vmas.n, i, t->vmas.vmas.v[i].end > address);

	return low == t->vmas.vmas.n || t->vmas.vmas.v[low].shared_kb ||
	       t->vmas.vmas.v[low].swap_kb;
}

/* ---- pages that relatives share ---- */

static size_t slot_of(const struct page_seen *seen, uint64_t key)
{
	size_t i = (key * 0x9e3779b97f4a7c15) >> 20 & (seen->size - 1);

	while (seen->v[i] && seen->v[i] != key)
		i = (i + 1) & (seen->size - 1);
	return i;
}

static int grow(struct page_seen *seen)
{
	struct page_seen bigger = {.size = seen->size ? 2 * seen->size : 1024};

	bigger.v = calloc(bigger.size, sizeof(*bigger.v));
	if (!bigger.v)
		return -ENOMEM;
	for (size_t i = 0; i < seen->size; i++)
		if (seen->v[i])
			bigger.v[slot_of(&bigger, seen->v[i])] = seen->v[i];
	bigger.n = seen->n;
	free(seen->v);
	*seen = bigger;
	return 0;
}

/* 1: it is new. */
static int see(struct page_seen *seen, uint64_t key)
{
	size_t i;

	if (seen->n >= seen->size / 2 && grow(seen) < 0)
		return -ENOMEM;
	i = slot_of(seen, key);
	if (seen->v[i])
		return 0;
	seen->v[i] = key;
	seen->n++;
	return 1;
}

void page_seen_free(struct page_seen *seen)
{
	free(seen->v);
	*seen = (struct page_seen){};
}

/* Which page that may be, among relatives; 0: it is nobody else's. Frames are hidden from ordinary
 * users: there, the same address is taken for the same page. */
static uint64_t key_of(uint64_t entry, uint64_t address)
{
	uint64_t frame = entry & PAGEMAP_FRAME;

	if (entry & (PAGEMAP_EXCLUSIVE | PAGEMAP_SWAPPED) || !(entry & PAGEMAP_PRESENT))
		return 0;
	return frame ? frame << 1 | 1 : address;
}

static int leave_seen_in(int fd, const struct span *span, struct page_seen *seen,
			 struct span_vec *ret, struct error *e)
{
	uint64_t entries[512];

	for (uint64_t at = span->start; at < span->end;) {
		size_t n = (span->end - at) / PAGE_BYTES;
		int r;

		n = n < 512 ? n : 512;
		r = pagemap_entries(fd, at, entries, n, e);
		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++, at += PAGE_BYTES) {
			uint64_t key = key_of(entries[i], at);

			r = key ? see(seen, key) : 1;
			if (r > 0)
				r = span_add(ret, at, at + PAGE_BYTES);
			if (r < 0)
				return no_memory(e);
		}
	}
	return 0;
}

/*
 * A page that a fork has left shared is saved once, from the first process that has it. So it is
 * copied from that one only, and left to the freeze for others, in case that it is needed after
 * all.
 */
static int leave_seen(struct mm_track *t, int proc_fd, struct page_seen *seen, struct error *e)
{
	_cleanup_(close_fd) int fd =
		procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", t->tid);
	struct span_vec left = {};
	int r = fd < 0 ? fd : 0;

	for (size_t i = 0; r >= 0 && i < t->todo.n; i++) {
		const struct span *s = &t->todo.v[i];

		if (is_shared(t, s->start) || is_shared(t, s->end - 1))
			r = leave_seen_in(fd, s, seen, &left, e);
		else if (span_add(&left, s->start, s->end) < 0)
			r = no_memory(e);
	}
	if (r < 0) {
		vec_free(&left);
		return r;
	}
	vec_free(&t->todo);
	t->todo = left;
	return 0;
}

/* ---- copying ---- */

struct copying {
	struct mm_track *t;
	int proc_fd;
	pthread_mutex_t lock;
	struct span_vec unread;
};

/*
 * From several threads. What cannot be read has gone meanwhile: that was written to, in a way, and
 * is no failure.
 */
static int read_running(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	struct copying *c = arg;
	struct error gone = {};
	struct span *s;
	int r;

	r = is_shared(c->t, address)
		    ? pages_read_shared(c->proc_fd, c->t->tid, address, buf, len, &gone)
		    : pages_read(c->proc_fd, c->t->tid, address, buf, len, &gone);
	if (r >= 0)
		return 0;
	memset(buf, 0, len);
	pthread_mutex_lock(&c->lock);
	s = vec_push(&c->unread);
	if (s)
		*s = (struct span){address, address + len};
	pthread_mutex_unlock(&c->lock);
	return s ? 0 : no_memory(e);
}

/* From one thread at a time. */
static int copy_placed(void *arg, uint64_t address, uint64_t length, uint64_t position)
{
	struct copying *c = arg;

	return kept_add(&c->t->kept, address, address + length, position);
}

static int by_start(const void *a, const void *b)
{
	const struct kept_span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* All copies but those of what lies in these spans. */
static int leave(struct mm_track *t, const struct span_vec *spans, struct error *e)
{
	struct kept_spans others = {};

	if (kept_but(&t->kept, spans, &others) < 0) {
		vec_free(&others);
		return no_memory(e);
	}
	vec_free(&t->kept);
	t->kept = others;
	return 0;
}

int track_leave(struct mm_track *t, struct error *e)
{
	return leave(t, &t->todo, e);
}

static int copy_runs(struct copying *c, const struct page_run *runs, size_t n,
		     struct page_store *store, struct error *e)
{
	struct mm_track *t = c->t;
	int r = store_put_all(store, t->parent, runs, n, read_running, copy_placed, c, e);

	if (t->kept.n)
		qsort(t->kept.v, t->kept.n, sizeof(*t->kept.v), by_start);
	if (r < 0 || !c->unread.n)
		return r;
	qsort(c->unread.v, c->unread.n, sizeof(*c->unread.v), by_address);
	return leave(t, &c->unread, e);
}

/* What is written again before its turn comes is left for later, as far as that is told in time. */
#define PORTION	   (64ull << 20)
#define HOT(bytes) ((bytes) / 256)

struct portion {
	VEC(struct page_run) runs;
	uint64_t bytes;
};

static int add_run(struct portion *p, uint64_t start, uint64_t end)
{
	struct page_run *run = start < end ? vec_push(&p->runs) : NULL;

	if (run)
		*run = (struct page_run){start, end - start, 0};
	return run || start >= end ? 0 : -ENOMEM;
}

static int add_unwritten(struct portion *p, int fd, const struct span *s, struct span_vec *written)
{
	uint64_t at = s->start;
	int r;

	written->n = 0;
	r = pagemap_find_written(fd, s, written);
	if (r == -ENOMEM)
		return r;
	vec_for_each (w, written) {
		r = add_run(p, at, w->start);
		if (r < 0)
			return r;
		at = w->end;
	}
	return add_run(p, at, s->end);
}

/* From the spans, of which the first has been taken as far as *at; `most` bytes, and if `fd` is a
 * page map only what has not been written again. */
static int take_portion(struct portion *p, int fd, const struct span_vec *spans, size_t *i,
			uint64_t *at, uint64_t most)
{
	struct span_vec written = {};
	int r = 0;

	p->runs.n = 0;
	p->bytes = 0;
	while (r >= 0 && *i < spans->n && p->bytes < most) {
		const struct span *s = &spans->v[*i];
		uint64_t start = *at > s->start ? *at : s->start;
		uint64_t end = s->end - start < most - p->bytes ? s->end : start + most - p->bytes;
		const struct span part = {start, end};

		r = fd < 0 ? add_run(p, start, end) : add_unwritten(p, fd, &part, &written);
		p->bytes += end - start;
		*at = end;
		if (end == s->end)
			++*i;
	}
	vec_free(&written);
	return r;
}

static int copy_portions(struct copying *c, int fd, struct page_store *store, struct error *e)
{
	struct mm_track *t = c->t;
	struct portion p = {};
	uint64_t at = 0;
	size_t i = 0;
	int r = 0;

	while (r >= 0 && i < t->todo.n) {
		if (take_portion(&p, fd, &t->todo, &i, &at, fd < 0 ? UINT64_MAX : PORTION) < 0)
			r = no_memory(e);
		if (r >= 0 && p.runs.n)
			r = copy_runs(c, p.runs.v, p.runs.n, store, e);
	}
	vec_free(&p.runs);
	return r;
}

int track_copy(struct mm_track *t, int proc_fd, struct page_seen *seen, struct page_store *store,
	       struct error *e)
{
	struct copying c = {t, proc_fd, PTHREAD_MUTEX_INITIALIZER, {}};
	_cleanup_(close_fd) int fd = -EBADF;
	uint64_t bytes = 0, again = 0;
	int r = track_leave(t, e);

	if (r >= 0)
		r = leave_seen(t, proc_fd, seen, e);
	vec_for_each (s, &t->todo)
		bytes += s->end - s->start;
	if (r >= 0 && bytes > PORTION)
		r = track_again(t, proc_fd, &again, e);
	if (r >= 0 && again > HOT(bytes)) {
		fd = procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", t->tid);
		r = fd < 0 ? fd : r;
	}
	if (r >= 0)
		r = copy_portions(&c, fd, store, e);
	vec_free(&c.unread);
	return r;
}
