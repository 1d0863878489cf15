/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/track.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "mm/pagemap.h"
#include "mm/shared.h"

/* For so long, what smaps has told is taken for what it would tell: from one checkpoint to the
 * next, and from one look to the next, where it has to be told once more after the freeze. */
#define KNOWN_NS      200000000ull
#define KNOWN_LOOK_NS 2000000000ull

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
	size_t low = bisect(spans->n, i, spans->v[i].end > start);

	return low < spans->n && spans->v[low].start < end;
}

/*
 * What another userfaultfd has gives -EBUSY. fd: of /proc/PID/pagemap. A mark in what is not
 * registered any more may mean nothing: see track.h.
 */
static int register_range(struct mm_track *t, int fd, uint64_t start, uint64_t end)
{
	struct uffdio_register reg = {
		.range = {start, end - start},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect unmark = {.range = {start, end - start}};
	bool fresh = !pagemap_is_tracked(fd, start);
	struct span *s;

	if (fresh && !t->lasting && overlaps(&t->ever, start, end))
		return 0;
	if (ioctl(t->uffd, UFFDIO_REGISTER, &reg) < 0)
		return 0;
	if (fresh && t->lasting && ioctl(t->uffd, UFFDIO_WRITEPROTECT, &unmark) < 0) {
		ioctl(t->uffd, UFFDIO_UNREGISTER, &reg.range);
		return 0;
	}
	s = vec_push(&t->spans);
	if (!s)
		return -ENOMEM;
	*s = (struct span){start, end};
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

int spans_unite(struct span_vec *to, const struct span_vec *more)
{
	size_t n = 0;

	vec_for_each (s, more) {
		struct span *place = vec_push(to);

		if (!place)
			return -ENOMEM;
		*place = *s;
	}
	if (to->n)
		qsort(to->v, to->n, sizeof(*to->v), by_address);
	for (size_t i = 0; i < to->n; i++) {
		struct span *s = &to->v[i], *last = n ? &to->v[n - 1] : NULL;

		if (!last || s->start > last->end)
			to->v[n++] = *s;
		else if (s->end > last->end)
			last->end = s->end;
	}
	to->n = n;
	return 0;
}

static int remember(struct mm_track *t)
{
	return spans_unite(&t->ever, &t->spans);
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
		if (vma_classify(v, NULL) >= 0 && v->kind == VMA_ANON &&
		    register_range(t, fd, v->start, v->end) < 0)
			return no_memory(e);
	}
	return remember(t) < 0 ? no_memory(e) : 0;
}

int track_register_new(struct mm_track *t, int fd, const Reprise__Mm *mm, struct error *e)
{
	t->spans.n = 0;
	for (size_t i = 0; i < mm->n_vmas; i++)
		if (mm->vmas[i]->kind == VMA_ANON &&
		    register_range(t, fd, mm->vmas[i]->start, mm->vmas[i]->end) < 0)
			return no_memory(e);
	return remember(t) < 0 ? no_memory(e) : 0;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void track_seen(struct mm_track *t, struct vma_list *list, bool fresh)
{
	vma_list_free(&t->vmas);
	t->vmas = *list;
	*list = (struct vma_list){};
	if (fresh)
		t->seen_ns = now_ns();
}

static bool known_for(const struct mm_track *t, uint64_t ns)
{
	return t->seen_ns && now_ns() - t->seen_ns < ns;
}

bool track_knows(const struct mm_track *t)
{
	return known_for(t, KNOWN_NS);
}

/* smaps takes 16 ms per GiB: not at each look. */
static int look_at_mappings(struct mm_track *t, int proc_fd, struct error *e)
{
	_cleanup_(vma_list_free) struct vma_list now = {};
	int r = known_for(t, KNOWN_LOOK_NS) ? vmas_read(proc_fd, t->tid, "maps", &now, e) : 0;

	if (r >= 0 && now.vmas.n && vmas_take_over(&now, &t->vmas)) {
		track_seen(t, &now, false);
		return 0;
	}
	vma_list_free(&now);
	if (r >= 0)
		r = vmas_read(proc_fd, t->tid, "smaps", &now, e);
	if (r >= 0)
		track_seen(t, &now, true);
	return r;
}

int track_look(struct mm_track *t, int proc_fd, uint64_t *ret_bytes, struct error *e)
{
	_cleanup_(close_fd) int fd =
		procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", t->tid);
	uint64_t bytes = 0;
	int r = fd < 0 ? fd : 0;

	if (r >= 0)
		r = look_at_mappings(t, proc_fd, e);
	t->todo.n = 0;
	vec_for_each (s, &t->spans)
		if (r >= 0)
			r = pagemap_take_written(fd, s, &t->todo, e);
	if (r >= 0 && spans_unite(&t->todo, &t->tried) < 0)
		r = no_memory(e);
	t->tried.n = 0;
	if (r >= 0 && spans_unite(&t->sure, &t->todo) < 0)
		r = no_memory(e);
	vec_for_each (s, &t->todo)
		bytes += s->end - s->start;
	*ret_bytes += bytes;
	return r;
}

int kept_add(struct kept_spans *to, uint64_t start, uint64_t end, uint64_t position)
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

int kept_but(const struct kept_spans *kept, const struct span_vec *but, struct kept_spans *ret)
{
	size_t i = 0;

	vec_for_each (k, kept) {
		uint64_t at = k->start;

		while (i < but->n && but->v[i].end <= at)
			i++;
		for (size_t j = i; j < but->n && but->v[j].start < k->end; j++) {
			if (but->v[j].start > at &&
			    kept_add(ret, at, but->v[j].start, k->position + (at - k->start)) < 0)
				return -ENOMEM;
			at = but->v[j].end;
		}
		if (at < k->end && kept_add(ret, at, k->end, k->position + (at - k->start)) < 0)
			return -ENOMEM;
	}
	return 0;
}

void track_drop(struct mm_track *t)
{
	t->spans.n = 0;
	t->sure.n = 0;
	t->todo.n = 0;
	t->tried.n = 0;
	t->kept.n = 0;
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

		if (start < end && kept_add(ret, start, end, k->position + (start - k->start)) < 0)
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
void track_end(struct mm_track *t)
{
	close_fd(&t->uffd);
	vec_free(&t->spans);
	vec_free(&t->ever);
	vec_free(&t->sure);
	vec_free(&t->todo);
	vec_free(&t->tried);
	vec_free(&t->kept);
	vma_list_free(&t->vmas);
}

void tracks_end(struct mm_tracks *tracks)
{
	vec_for_each (t, &tracks->v)
		track_end(t);
	vec_free(&tracks->v);
	shared_end(tracks->shared);
	tracks->shared = NULL;
}
