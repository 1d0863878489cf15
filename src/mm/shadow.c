/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "mm/pages.h"
#include "mm/state.h"

/*
 * Shared anonymous memory, and a memfd that no descriptor refers to, have no door but
 * /proc/PID/map_files, which ordinary users may not open. For them the memory is copied through the
 * mappings of a task to a file of the same kind, which then stands for it. A hole in such memory
 * would be filled by being read, so that the task is asked what is there (mincore() looks into the
 * page cache of the object); where something is swapped out that is no proof, and all is read.
 */
enum {
	PAGES_AT_ONCE = 16 * 1024, /* for mincore(): a byte each, in the data of a batch */
	COPY_BYTES = 64 * 1024,
};

static bool same_object(const struct vma *a, const struct vma *b)
{
	return a->shared && b->shared && a->ino == b->ino && a->dev_major == b->dev_major &&
	       a->dev_minor == b->dev_minor;
}

static int copy(struct checkpoint *c, const struct checkpoint_process *p, const struct vma *v,
		uint64_t start, uint64_t end, int fd, struct error *e)
{
	char buf[COPY_BYTES];

	while (start < end) {
		size_t n = end - start < sizeof(buf) ? end - start : sizeof(buf);
		int r = pages_read(c->proc_fd, p->tid, start, buf, n, e);

		if (r < 0)
			return r;
		if (pwrite(fd, buf, n, (off_t)(v->offset + (start - v->start))) != (ssize_t)n)
			return error_errno(e, -ENOSPC, E_NO_MEMORY, "cannot copy shared memory");
		start += n;
	}
	return 0;
}

static int copy_present(struct checkpoint *c, const struct checkpoint_process *p,
			const struct vma *v, uint64_t start, size_t n, int fd, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t out = batch_data(&b, NULL, (uint32_t)n);
	int call = batch_call(&b, __NR_mincore, VAL(start), VAL(n * PAGE_BYTES), DATA(out));
	int r = agent_run(p->agent, p->speaker->tid, p->speaker->cpu, &b, e);
	const uint8_t *there;

	if (r < 0)
		return r;
	if (batch_result(&b, call) < 0)
		return copy(c, p, v, start, start + n * PAGE_BYTES, fd, e);
	there = batch_at(&b, out);
	for (size_t i = 0, j; r >= 0 && i < n; i = j) {
		for (j = i; j < n && (there[j] & 1) == (there[i] & 1); j++)
			;
		if (there[i] & 1)
			r = copy(c, p, v, start + i * PAGE_BYTES, start + j * PAGE_BYTES, fd, e);
	}
	return r;
}

static int copy_mapping(struct checkpoint *c, const struct checkpoint_process *p,
			const struct vma *v, int fd, struct error *e)
{
	if (v->swap_kb)
		return copy(c, p, v, v->start, v->end, fd, e);
	for (uint64_t at = v->start; at < v->end;) {
		size_t n = (v->end - at) / PAGE_BYTES;
		int r;

		if (n > PAGES_AT_ONCE)
			n = PAGES_AT_ONCE;
		r = copy_present(c, p, v, at, n, fd, e);
		if (r < 0)
			return r;
		at += n * PAGE_BYTES;
	}
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* All offsets from the first to the last, each equally often, as far as the sum tells. */
static bool is_even(struct span_vec *offsets)
{
	uint64_t end, total = 0;

	qsort(offsets->v, offsets->n, sizeof(*offsets->v), by_start);
	end = offsets->v[0].start;
	vec_for_each (s, offsets) {
		if (s->start > end)
			return false;
		if (s->end > end)
			end = s->end;
		total += s->end - s->start;
	}
	return total % (end - offsets->v[0].start) == 0;
}

/*
 * Where remap_file_pages() has put pages in another order there may be some that are mapped nowhere
 * now, and that the program will have mapped again. Then mappings of the object adjoin, and are not
 * in order.
 */
int mm_shadow_check(const struct vma_list *list, const struct vma *v, struct error *e)
{
	struct span_vec run = {};
	const struct vma *last = NULL;
	bool in_order = true, good = true, room = true;

	for (size_t i = 0; i <= list->vmas.n && good && room; i++) {
		const struct vma *w = i < list->vmas.n ? &list->vmas.v[i] : NULL;
		struct span *s;

		if (w && !same_object(v, w))
			w = NULL;
		if (last && (!w || w->start != last->end)) {
			good = in_order || is_even(&run);
			run.n = 0;
			in_order = true;
		} else if (last) {
			in_order =
				in_order && w->offset == last->offset + (last->end - last->start);
		}
		s = w ? vec_push(&run) : NULL;
		if (s)
			*s = (struct span){w->offset, w->offset + (w->end - w->start)};
		room = s || !w;
		last = w;
	}
	vec_free(&run);
	if (!room)
		return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for mapped files");
	return good ? 0
		    : error_set(e, -EPERM, E_PERMISSION,
				"some pages of the memory behind it may be mapped nowhere for the "
				"moment (remap_file_pages), and only a user with "
				"CAP_CHECKPOINT_RESTORE may open it");
}

int mm_shadow(struct checkpoint *c, const struct checkpoint_process *p, const struct vma_list *list,
	      const struct vma *v, struct span_vec *ret_covered, int *ret_fd, struct error *e)
{
	/* the name that it has in the image is that of the original */
	_cleanup_(close_fd) int fd = memfd_create("copy", MFD_CLOEXEC);
	uint64_t size = 0;

	if (fd < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot make a file for shared memory");
	vec_for_each (w, &list->vmas)
		if (same_object(v, w) && w->offset + (w->end - w->start) > size)
			size = w->offset + (w->end - w->start);
	if (ftruncate(fd, (off_t)size) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot make a file for shared memory");
	vec_for_each (w, &list->vmas) {
		struct span *s;
		int r;

		if (!same_object(v, w))
			continue;
		s = vec_push(ret_covered);
		if (!s)
			return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for mapped files");
		*s = (struct span){w->offset, w->offset + (w->end - w->start)};
		r = copy_mapping(c, p, w, fd, e);
		if (r < 0)
			return r;
	}
	*ret_fd = take_fd(&fd);
	return 0;
}
