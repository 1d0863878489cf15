/* SPDX-License-Identifier: Apache-2.0 */
/* Copies in advance of memory that is shared, in the freeze: which of them hold. */
#include <errno.h>
#include <string.h>

#include "core/cleanup.h"
#include "mm/pagemap.h"
#include "mm/shared_private.h"

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory to track pages");
}

/* Was all of that registered, by this mapping or by several? */
static bool is_covered(const struct shared_object *o, const struct shared_map *by,
		       const struct vma *v)
{
	uint64_t start = v->start >= by->start ? by->end : v->start;
	bool more = true;

	while (more && start < v->end) {
		more = false;
		vec_for_each (map, &o->maps)
			if (map->tid == by->tid && map->start <= start && map->end > start) {
				start = map->end;
				more = true;
			}
	}
	return start >= v->end;
}

/*
 * Is the mapping still what it was? A part that is gone, or maps something else, tells nothing; and
 * nothing is told of what has been added to it.
 */
static bool is_there(const struct vma_list *maps, struct shared_object *o,
		     const struct shared_map *map)
{
	uint64_t at = map->start;

	vec_for_each (v, &maps->vmas) {
		if (v->end <= at)
			continue;
		if (at >= map->end)
			break;
		if (v->start > at || !shared_is_of(o, v) ||
		    v->offset - v->start != map->offset - map->start || !is_covered(o, map, v))
			return false;
		at = v->end;
		o->now++;
	}
	return at >= map->end;
}

/*
 * What bears no mark was written, or may have been. Some kernels tell nothing of places whose page
 * table is gone; where a page of it is told of, or one bears a mark, it is not.
 */
static int find_written(int fd, const struct shared_map *map, bool tells_holes,
			struct span_vec *ret)
{
	const struct span span = {map->start, map->end};
	struct span_vec written = {};
	size_t at = 0;
	int r = pagemap_find_written(fd, &span, tells_holes ? ret : &written);

	if (tells_holes)
		return r;
	for (uint64_t start = map->start, end; r >= 0 && start < map->end; start = end) {
		end = (start & ~(PAGEMAP_TABLE - 1)) + PAGEMAP_TABLE;
		end = end < map->end ? end : map->end;
		while (at < written.n && written.v[at].end <= start)
			at++;
		if (at < written.n && written.v[at].start < end)
			continue;
		if (!pagemap_is_marked(fd, start) && span_add(ret, start, end) < 0)
			r = -ENOMEM;
	}
	if (r >= 0)
		r = spans_unite(ret, &written);
	vec_free(&written);
	return r;
}

/* Through one mapping, of a task whose page map that is. Returns 0 if that cannot be said. */
static int add_stale(int fd, const struct vma_list *maps, struct shared_object *o,
		     const struct shared_map *map, bool tells_holes, struct span_vec *ret)
{
	struct span_vec found = {};
	int r = is_there(maps, o, map) ? find_written(fd, map, tells_holes, &found) : -ENOENT;

	if (r >= 0)
		r = shared_offsets(map, &found, ret);
	vec_free(&found);
	return r == -ENOMEM ? r : r >= 0;
}

/* What was written through the mappings of one address space. */
static int settle_space(struct checkpoint *c, struct shared_objects *s, const struct mm_track *t)
{
	_cleanup_(vma_list_free) struct vma_list maps = {};
	_cleanup_(close_fd) int fd = -EBADF;
	struct error unused = {};

	vec_for_each (o, &s->v)
		vec_for_each (map, &o->maps) {
			int r;

			if (!o->settled || map->tid != t->tid)
				continue;
			if (fd < 0) {
				fd = shared_pagemap(c, t->tid);
				if (fd < 0 ||
				    vmas_read(c->proc_fd, t->tid, "maps", &maps, &unused) < 0)
					return 0;
			}
			r = add_stale(fd, &maps, o, map, s->tells_holes, &o->todo);
			if (r < 0)
				return r;
			map->told = r;
		}
	return 0;
}

/* Are there others that can be written to? Those that have been put together are counted twice. */
static const char *others(struct checkpoint *c, const struct shared_object *o)
{
	int writable = 0;

	if (kernel_writable_mappings(c->kernel, o->is.fd, &writable) < 0 ||
	    (writable < 0 ? 0 : (size_t)writable) != o->now)
		return "there are other mappings of it";
	return NULL;
}

/* A page that came since is either among those that were written, or it is zero. */
static int settle_object(struct checkpoint *c, struct shared_object *o, struct error *e)
{
	vec_for_each (map, &o->maps)
		if (o->settled && !map->told) {
			o->settled = false;
			o->why = "a mapping has changed";
		}
	if (o->settled) {
		o->why = others(c, o);
		o->settled = !o->why;
	}
	if (!o->settled) {
		checkpoint_trace(c, "shared memory %llu is copied in the freeze: %s",
				 (unsigned long long)o->is.ino, o->why);
		return 0;
	}
	if (spans_unite(&o->todo, &(struct span_vec){}) < 0 || spans_unite(&o->data, &o->todo) < 0)
		return no_memory(e);
	return shared_drop(o, &o->todo, e);
}

int shared_settle(struct checkpoint *c, struct error *e)
{
	struct shared_objects *s = c->tracks ? c->tracks->shared : NULL;
	int r = 0;

	if (!s)
		return 0;
	vec_for_each (o, &s->v) {
		o->why = o->fresh || !o->kept.n ? "nothing of it was copied before"
						: shared_doubt(s, o);
		o->settled = !o->why;
		o->todo.n = 0;
		o->now = 0;
	}
	vec_for_each (t, &c->tracks->v)
		if (r >= 0 && settle_space(c, s, t) < 0)
			r = no_memory(e);
	vec_for_each (o, &s->v)
		if (r >= 0)
			r = settle_object(c, o, e);
	return r;
}

int shared_contents(struct checkpoint *c, const Reprise__Inode *inode, struct page_runs *ret_data,
		    struct page_runs *ret_copies)
{
	struct shared_objects *s = c->tracks ? c->tracks->shared : NULL;
	const struct shared_object *of = NULL;
	struct page_run *run;

	if (s)
		vec_for_each (o, &s->v)
			if (o->settled && inode_is_object(inode, &o->is))
				of = o;
	if (!of)
		return 0;
	vec_for_each (span, &of->data) {
		run = vec_push(ret_data);
		if (!run)
			return -ENOMEM;
		*run = (struct page_run){span->start, span->end - span->start, 0};
	}
	vec_for_each (k, &of->kept) {
		run = vec_push(ret_copies);
		if (!run)
			return -ENOMEM;
		*run = (struct page_run){k->start, k->end - k->start, k->position};
	}
	return 1;
}
