/* SPDX-License-Identifier: Apache-2.0 */
/* Tracks that last from one checkpoint to the next: see track.h. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
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

int track_survey(struct mm_tracks *surveyed, pid_t tid, uint64_t start_time, struct vma_list *list)
{
	struct mm_track *t = vec_push(&surveyed->v);

	if (!t)
		return -ENOMEM;
	*t = (struct mm_track){.tid = tid, .start_time = start_time, .uffd = -EBADF};
	track_seen(t, list, true);
	return 0;
}

void track_take_survey(struct mm_track *t, struct mm_tracks *surveyed)
{
	struct mm_track *from = track_find(surveyed, t->tid, t->start_time);

	if (!from)
		return;
	track_seen(t, &from->vmas, false);
	t->seen_ns = from->seen_ns;
}

int track_again(const struct mm_track *t, int proc_fd, uint64_t *ret_bytes, struct error *e)
{
	_cleanup_(close_fd) int fd =
		procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", t->tid);
	struct span_vec written = {}, again = {};
	int r = fd < 0 ? fd : 0;

	vec_for_each (s, &t->spans)
		if (r >= 0 && pagemap_find_written(fd, s, &written) == -ENOMEM)
			r = no_memory(e);
	if (r >= 0 && spans_common(&t->todo, &written, &again) < 0)
		r = no_memory(e);
	vec_for_each (s, &again)
		*ret_bytes += s->end - s->start;
	vec_free(&written);
	vec_free(&again);
	return r;
}

/* In pieces of that size, so that all kinds of use are among them. */
#define TRY_PIECE (256ul << 10)

static int try_span(struct mm_track *t, int fd, const struct span *s, struct error *e)
{
	uint64_t at = s->start;
	int r = 0;

	while (r >= 0 && at < s->end) {
		uint64_t next = (at & ~(TRY_PIECE - 1)) + TRY_PIECE;
		const struct span piece = {at, next < s->end ? next : s->end};

		if (at / TRY_PIECE % TRACK_TRIED == 0)
			r = pagemap_take_written(fd, &piece, &t->todo, e);
		at = piece.end;
	}
	return r;
}

int track_try(struct mm_track *t, int proc_fd, uint64_t *ret_bytes, struct error *e)
{
	_cleanup_(close_fd) int fd =
		procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/pagemap", t->tid);
	struct span_vec written = {};
	int r = fd < 0 ? fd : 0;

	t->todo.n = 0;
	vec_for_each (s, &t->spans)
		if (r >= 0 && pagemap_find_there(fd, s, &written) == -ENOMEM)
			r = no_memory(e);
	vec_for_each (s, &written)
		if (r >= 0)
			r = try_span(t, fd, s, e);
	vec_for_each (s, &t->todo)
		*ret_bytes += s->end - s->start;
	vec_free(&written);
	return r;
}

void track_tried(struct mm_track *t)
{
	struct span_vec none = t->tried;

	t->tried = t->todo;
	none.n = 0;
	t->todo = none;
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
	uint64_t spans, ever, sure, vmas; /* how many of each follow */
	uint64_t text;			  /* bytes of it behind them */
};

/* With a string in the text, or none, told by its place. */
struct packed_vma {
	struct vma v;
	uint64_t name, strange; /* counted from 1 */
};

static int write_all(int fd, const void *data, size_t size)
{
	const char *p = data;

	while (size) {
		ssize_t n = write(fd, p, size);

		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

static int read_all(int fd, void *data, size_t size)
{
	char *p = data;

	while (size) {
		ssize_t n = read(fd, p, size);

		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

static bool in_text(const struct vma_list *list, const char *s)
{
	return s && list->text && s >= list->text;
}

static uint64_t text_size(const struct vma_list *list)
{
	uint64_t size = 0;

	vec_for_each (v, &list->vmas) {
		const char *ends[] = {v->name, v->strange};

		for (int i = 0; i < 2; i++) {
			uint64_t end = in_text(list, ends[i]) ? (uint64_t)(ends[i] - list->text) +
									strlen(ends[i]) + 1
							      : 0;

			size = end > size ? end : size;
		}
	}
	return size;
}

static int write_vmas(int fd, const struct vma_list *list, uint64_t text)
{
	int r = 0;

	vec_for_each (v, &list->vmas) {
		struct packed_vma p = {.v = *v};

		if (in_text(list, v->name))
			p.name = (uint64_t)(v->name - list->text) + 1;
		if (in_text(list, v->strange))
			p.strange = (uint64_t)(v->strange - list->text) + 1;
		if (r >= 0)
			r = write_all(fd, &p, sizeof(p));
	}
	return r < 0 ? r : write_all(fd, list->text, text);
}

int track_pack(const struct mm_track *t, struct error *e)
{
	_cleanup_(close_fd) int fd = memfd_create("track", MFD_CLOEXEC);
	const struct packed head = {t->spans.n, t->ever.n, t->sure.n, t->vmas.vmas.n,
				    text_size(&t->vmas)};
	const struct span_vec *const lists[] = {&t->spans, &t->ever, &t->sure};
	int r = fd < 0 ? -errno : write_all(fd, &head, sizeof(head));

	for (int i = 0; r >= 0 && i < 3; i++)
		r = write_all(fd, lists[i]->v, lists[i]->n * sizeof(*lists[i]->v));
	if (r >= 0)
		r = write_vmas(fd, &t->vmas, head.text);
	if (r >= 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	return r < 0 ? error_errno(e, r, E_SYSTEM, "cannot hand tracks on") : take_fd(&fd);
}

static int read_spans(int fd, uint64_t n, struct span_vec *ret)
{
	vec_free(ret);
	if (!n)
		return 0;
	ret->v = calloc(n, sizeof(*ret->v));
	if (!ret->v)
		return -ENOMEM;
	ret->n = ret->cap = n;
	return read_all(fd, ret->v, n * sizeof(*ret->v));
}

static int read_vmas(int fd, uint64_t n, uint64_t text, struct vma_list *ret)
{
	_cleanup_(free_ptr) struct packed_vma *packed = calloc(n + 1, sizeof(*packed));
	int r = packed ? read_all(fd, packed, n * sizeof(*packed)) : -ENOMEM;

	vma_list_free(ret);
	ret->text = r < 0 ? NULL : calloc(1, text + 1);
	if (r >= 0)
		r = ret->text ? read_all(fd, ret->text, text) : -ENOMEM;
	for (uint64_t i = 0; r >= 0 && i < n; i++) {
		struct vma *v = vec_push(&ret->vmas);

		if (!v)
			return -ENOMEM;
		*v = packed[i].v;
		v->name = packed[i].name ? ret->text + packed[i].name - 1 : "";
		v->strange = packed[i].strange ? ret->text + packed[i].strange - 1 : NULL;
	}
	return r;
}

int track_unpack(struct mm_track *t, int fd)
{
	struct packed head;
	int r = read_all(fd, &head, sizeof(head));

	if (r >= 0)
		r = read_spans(fd, head.spans, &t->spans);
	if (r >= 0)
		r = read_spans(fd, head.ever, &t->ever);
	if (r >= 0)
		r = read_spans(fd, head.sure, &t->sure);
	return r < 0 ? r : read_vmas(fd, head.vmas, head.text, &t->vmas);
}
