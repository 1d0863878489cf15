/* SPDX-License-Identifier: Apache-2.0 */
/* Tracks that last from one checkpoint to the next: see track.h. */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/pages.h"
#include "mm/track.h"

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory to track pages");
}

/* ---- whose it is ---- */

void track_program(int proc_fd, pid_t tid, uint8_t ret[16])
{
	_cleanup_(free_ptr) char *auxv = NULL;
	struct error unused = {};
	ssize_t n = procfs_read(proc_fd, &auxv, &unused, "%d/auxv", tid);

	memset(ret, 0, 16);
	for (ssize_t at = 0; at + (ssize_t)sizeof(Elf64_auxv_t) <= n; at += sizeof(Elf64_auxv_t)) {
		Elf64_auxv_t entry;

		memcpy(&entry, auxv + at, sizeof(entry));
		if (entry.a_type != AT_RANDOM)
			continue;
		if (pages_read(proc_fd, tid, entry.a_un.a_val, ret, 16, &unused) < 0)
			memset(ret, 0, 16);
		return;
	}
}

bool track_is_same_program(const struct mm_track *t, int proc_fd)
{
	static const uint8_t none[16];
	uint8_t now[16];

	track_program(proc_fd, t->tid, now);
	return memcmp(now, none, sizeof(now)) != 0 && memcmp(now, t->program, sizeof(now)) == 0;
}

/* ---- what the parent of the image has ---- */

int spans_common(const struct span_vec *a, const struct span_vec *b, struct span_vec *ret)
{
	size_t i = 0, j = 0;

	while (i < a->n && j < b->n) {
		const struct span *x = &a->v[i], *y = &b->v[j];
		uint64_t start = x->start > y->start ? x->start : y->start;
		uint64_t end = x->end < y->end ? x->end : y->end;

		if (start < end && span_add(ret, start, end) < 0)
			return -ENOMEM;
		if (x->end <= y->end)
			i++;
		else
			j++;
	}
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/*
 * The pages of an object, of whatever stage: the last in which one is there has what the object
 * held in the end. What it has got from its parent by fork is none of them.
 */
static int pages_of(const struct page_map *map, uint64_t object, struct span_vec *ret,
		    struct error *e)
{
	VEC(struct span) all = {};
	struct page_group group;
	int r = 0;

	for (size_t i = 0; r >= 0 && page_map_group(map, i, &group); i++) {
		_cleanup_(free_ptr) struct page_run *runs = NULL;
		size_t n = 0;

		if (group.object != object)
			continue;
		r = page_map_runs(map, &group, &runs, &n, e);
		for (size_t k = 0; r >= 0 && k < n; k++) {
			struct span *s = vec_push(&all);

			if (!s)
				r = no_memory(e);
			else
				*s = (struct span){runs[k].address,
						   runs[k].address + runs[k].length};
		}
	}
	if (all.n)
		qsort(all.v, all.n, sizeof(*all.v), by_start);
	vec_for_each (s, &all)
		if (r >= 0 && span_add(ret, s->start, s->end) < 0)
			r = no_memory(e);
	vec_free(&all);
	return r;
}

int track_resume(struct mm_track *t, const struct page_map *map, struct error *e)
{
	struct span_vec there = {}, common = {};
	int r = pages_of(map, t->parent, &there, e);

	if (r >= 0 && spans_common(&t->sure, &there, &common) < 0)
		r = no_memory(e);
	t->kept.n = 0;
	vec_for_each (s, &common) {
		struct kept_span *k = r < 0 ? NULL : vec_push(&t->kept);

		if (k)
			*k = (struct kept_span){s->start, s->end, PAGE_PARENT | s->start};
		else if (r >= 0)
			r = no_memory(e);
	}
	vec_free(&there);
	vec_free(&common);
	return r;
}

int track_carry(struct mm_track *t, uint64_t object, const struct span_vec *unwritten)
{
	struct span_vec sure = {};

	if (spans_common(&t->sure, unwritten, &sure) < 0) {
		vec_free(&sure);
		return -ENOMEM;
	}
	vec_free(&t->sure);
	t->sure = sure;
	t->object = object;
	t->lasting = true;
	return 0;
}

/* ---- from one process to another ---- */

struct packed {
	uint64_t spans, ever, sure; /* numbers; the spans follow */
};

static int write_spans(int fd, const struct span_vec *spans)
{
	const char *p = (const char *)spans->v;
	size_t left = spans->n * sizeof(*spans->v);

	while (left) {
		ssize_t n = write(fd, p, left);

		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		left -= (size_t)n;
	}
	return 0;
}

int track_pack(const struct mm_track *t, struct error *e)
{
	_cleanup_(close_fd) int fd = memfd_create("track", MFD_CLOEXEC);
	const struct packed head = {t->spans.n, t->ever.n, t->sure.n};
	int r = 0;

	if (fd < 0 || write(fd, &head, sizeof(head)) != sizeof(head))
		r = -errno;
	if (r >= 0)
		r = write_spans(fd, &t->spans);
	if (r >= 0)
		r = write_spans(fd, &t->ever);
	if (r >= 0)
		r = write_spans(fd, &t->sure);
	return r < 0 ? error_errno(e, r, E_SYSTEM, "cannot hand tracks on") : take_fd(&fd);
}

static int read_spans(int fd, off_t *at, uint64_t n, struct span_vec *ret)
{
	size_t size = n * sizeof(*ret->v);

	vec_free(ret);
	if (!n)
		return 0;
	ret->v = malloc(size);
	if (!ret->v)
		return -ENOMEM;
	ret->n = ret->cap = n;
	for (size_t done = 0; done < size;) {
		ssize_t got = pread(fd, (char *)ret->v + done, size - done, *at + (off_t)done);

		if (got <= 0)
			return got ? -errno : -EIO;
		done += (size_t)got;
	}
	*at += (off_t)size;
	return 0;
}

int track_unpack(struct mm_track *t, int fd)
{
	struct packed head;
	off_t at = sizeof(head);
	int r;

	if (pread(fd, &head, sizeof(head), 0) != sizeof(head))
		return -EIO;
	r = read_spans(fd, &at, head.spans, &t->spans);
	if (r >= 0)
		r = read_spans(fd, &at, head.ever, &t->ever);
	return r < 0 ? r : read_spans(fd, &at, head.sure, &t->sure);
}
