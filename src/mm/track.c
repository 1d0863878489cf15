/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/track.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "mm/pagemap.h"
#include "mm/pages.h"

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory to track pages");
}

int track_begin(struct mm_tracks *tracks, pid_t tid, uint64_t start_time, int uffd, struct error *e)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC};
	struct mm_track *t;
	int r;

	if (ioctl(uffd, UFFDIO_API, &api) < 0) {
		r = error_errno(e, -errno, E_KERNEL_TOO_OLD,
				"no asynchronous write protection (6.7)");
		close_fd(&uffd);
		return r;
	}
	t = vec_push(&tracks->v);
	if (!t) {
		close_fd(&uffd);
		return no_memory(e);
	}
	t->tid = tid;
	t->start_time = start_time;
	t->uffd = uffd;
	return 0;
}

/* ---- looking ---- */

static bool overlaps(const struct span_vec *spans, uint64_t start, uint64_t end)
{
	size_t low = 0, high = spans->n;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (spans->v[mid].end <= start)
			low = mid + 1;
		else
			high = mid;
	}
	return low < spans->n && spans->v[low].start < end;
}

/* What another userfaultfd has gives -EBUSY. fd: of /proc/PID/pagemap. */
static int register_vma(struct mm_track *t, int fd, struct vma *v)
{
	struct uffdio_register reg = {
		.range = {v->start, v->end - v->start},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct span *s;

	if (vma_classify(v, NULL) < 0 || v->kind != VMA_ANON)
		return 0;
	/* see above: a mark in it may mean nothing any more */
	if (overlaps(&t->ever, v->start, v->end) && !pagemap_is_tracked(fd, v->start))
		return 0;
	if (ioctl(t->uffd, UFFDIO_REGISTER, &reg) < 0)
		return 0;
	s = vec_push(&t->spans);
	if (!s)
		return -ENOMEM;
	*s = (struct span){v->start, v->end};
	return 0;
}

/* Requests in flight write to pages that are pinned, and no stop makes them end. */
static bool is_ring(const struct vma *v)
{
	return strncmp(v->name, "/[aio]", 6) == 0 ||
	       strncmp(v->name, "anon_inode:[io_uring]", 21) == 0;
}

static int by_address(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Adds the spans to those that ever were. */
static int remember(struct mm_track *t)
{
	size_t n = 0;

	vec_for_each (s, &t->spans) {
		struct span *to = vec_push(&t->ever);

		if (!to)
			return -ENOMEM;
		*to = *s;
	}
	if (t->ever.n)
		qsort(t->ever.v, t->ever.n, sizeof(*t->ever.v), by_address);
	for (size_t i = 0; i < t->ever.n; i++) {
		struct span *s = &t->ever.v[i], *last = n ? &t->ever.v[n - 1] : NULL;

		if (!last || s->start > last->end)
			t->ever.v[n++] = *s;
		else if (s->end > last->end)
			last->end = s->end;
	}
	t->ever.n = n;
	return 0;
}

int track_register(struct mm_track *t, int proc_fd, struct error *e)
{
	_cleanup_(vma_list_free) struct vma_list maps = {};
	_cleanup_(close_fd) int fd =
		procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", t->tid);
	int r = fd < 0 ? fd : vmas_read(proc_fd, t->tid, "maps", &maps, e);

	if (r < 0)
		return r;
	t->spans.n = 0;
	vec_for_each (v, &maps.vmas) {
		if (is_ring(v))
			return error_set(e, -EBUSY, E_VMA_KIND, "asynchronous I/O is in use");
		if (register_vma(t, fd, v) < 0)
			return no_memory(e);
	}
	return remember(t) < 0 ? no_memory(e) : 0;
}

int track_look(struct mm_track *t, int proc_fd, uint64_t *ret_bytes, struct error *e)
{
	_cleanup_(close_fd) int fd =
		procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", t->tid);
	uint64_t bytes = 0;
	int r = fd < 0 ? fd : 0;

	vma_list_free(&t->vmas);
	if (r >= 0)
		r = vmas_read(proc_fd, t->tid, "smaps", &t->vmas, e);
	t->todo.n = 0;
	vec_for_each (s, &t->spans)
		if (r >= 0)
			r = pagemap_take_written(fd, s, &t->todo, e);
	vec_for_each (s, &t->todo)
		bytes += s->end - s->start;
	*ret_bytes += bytes;
	return r;
}

/* ---- copying ---- */

static int add_kept(struct kept_spans *to, uint64_t start, uint64_t end, uint64_t position)
{
	struct kept_span *last = to->n ? &to->v[to->n - 1] : NULL;

	if (last && last->end == start && last->position + (last->end - last->start) == position) {
		last->end = end;
		return 0;
	}
	last = vec_push(to);
	if (!last)
		return -ENOMEM;
	*last = (struct kept_span){start, end, position};
	return 0;
}

/* All copies but those of what has been written since. */
static int keep_others(const struct mm_track *t, struct kept_spans *ret)
{
	size_t i = 0;

	vec_for_each (k, &t->kept) {
		uint64_t at = k->start;

		while (i < t->todo.n && t->todo.v[i].end <= at)
			i++;
		for (size_t j = i; j < t->todo.n && t->todo.v[j].start < k->end; j++) {
			if (t->todo.v[j].start > at && add_kept(ret, at, t->todo.v[j].start,
								k->position + (at - k->start)) < 0)
				return -ENOMEM;
			at = t->todo.v[j].end;
		}
		if (at < k->end && add_kept(ret, at, k->end, k->position + (at - k->start)) < 0)
			return -ENOMEM;
	}
	return 0;
}

struct reading {
	int proc_fd;
	pid_t tid;
	bool shared;
};

static int read_running(void *arg, uint64_t address, void *buf, size_t len, struct error *e)
{
	const struct reading *from = arg;

	return from->shared ? pages_read_shared(from->proc_fd, from->tid, address, buf, len, e)
			    : pages_read(from->proc_fd, from->tid, address, buf, len, e);
}

/* Has it pages that a fork has left shared? They must not be taken apart by being read. */
static bool is_shared(const struct mm_track *t, uint64_t address)
{
	vec_for_each (v, &t->vmas.vmas)
		if (address < v->end)
			return v->shared_kb || v->swap_kb;
	return true;
}

/* What has gone meanwhile was written to in a way. */
static int copy_span(struct mm_track *t, struct reading *from, const struct span *span,
		     struct page_store *store, struct error *e)
{
	for (uint64_t at = span->start; at < span->end;) {
		size_t len = span->end - at < STORE_PIECE ? span->end - at : STORE_PIECE;
		struct error unread = {};
		uint64_t position;
		int r = store_put(store, false, at, len, read_running, from, &position, &unread);

		if (r < 0 && unread.code != E_VMA_READ) {
			if (e)
				*e = unread;
			return r;
		}
		if (r >= 0 && add_kept(&t->kept, at, at + len, position) < 0)
			return no_memory(e);
		at += len;
	}
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const struct kept_span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

int track_leave(struct mm_track *t, struct error *e)
{
	struct kept_spans others = {};

	if (keep_others(t, &others) < 0) {
		vec_free(&others);
		return no_memory(e);
	}
	vec_free(&t->kept);
	t->kept = others;
	return 0;
}

int track_copy(struct mm_track *t, int proc_fd, struct page_store *store, struct error *e)
{
	struct reading from = {proc_fd, t->tid, false};
	int r = track_leave(t, e);

	if (r < 0)
		return r;
	vec_for_each (s, &t->todo) {
		from.shared = is_shared(t, s->start);
		r = copy_span(t, &from, s, store, e);
		if (r < 0)
			return r;
	}
	if (t->kept.n)
		qsort(t->kept.v, t->kept.n, sizeof(*t->kept.v), by_start);
	return 0;
}

/* ---- in the freeze ---- */

struct mm_track *track_find(struct mm_tracks *tracks, pid_t tid, uint64_t start_time)
{
	vec_for_each (t, &tracks->v)
		if (t->tid == tid && t->start_time == start_time)
			return t;
	return NULL;
}

bool track_covers(const struct mm_track *t, uint64_t start, uint64_t end)
{
	return t && overlaps(&t->spans, start, end);
}

bool track_covered(const struct mm_track *t, uint64_t start, uint64_t end)
{
	return t && overlaps(&t->ever, start, end);
}

int track_kept(const struct mm_track *t, const struct span_vec *unwritten, struct kept_spans *ret)
{
	size_t i = 0, j = 0;

	while (i < t->kept.n && j < unwritten->n) {
		const struct kept_span *k = &t->kept.v[i];
		const struct span *s = &unwritten->v[j];
		uint64_t start = k->start > s->start ? k->start : s->start;
		uint64_t end = k->end < s->end ? k->end : s->end;

		if (start < end && add_kept(ret, start, end, k->position + (start - k->start)) < 0)
			return -ENOMEM;
		if (k->end <= s->end)
			i++;
		else
			j++;
	}
	return 0;
}

/*
 * In one go: what is unregistered piece by piece is split, and mremap() of the application fails
 * across the seam.
 */
static void track_end(struct mm_track *t)
{
	close_fd(&t->uffd);
	vec_free(&t->spans);
	vec_free(&t->ever);
	vec_free(&t->todo);
	vec_free(&t->kept);
	vma_list_free(&t->vmas);
}

void tracks_end(struct mm_tracks *tracks)
{
	vec_for_each (t, &tracks->v)
		track_end(t);
	vec_free(&tracks->v);
}
