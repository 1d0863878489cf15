/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/relatives.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "core/cleanup.h"
#include "mm/pages.h"
#include "mm/state.h"

/*
 * Who may share pages with whom. Cheap where there is nothing to share: programs that were started
 * by exec have no place alike.
 */

/* Frames are hidden from ordinary users: a hash of the contents takes their place, and contents are
 * compared. */
#define FRAME_HASHED (1ull << 63)

struct family {
	struct checkpoint *c;
	struct relatives *rel;
	bool hashed;
};

void relatives_free(struct relatives *r)
{
	for (size_t i = 0; i < r->n; i++) {
		vec_free(&r->nodes[i].pages);
		vec_free(&r->nodes[i].alike);
		vec_free(&r->actions[i]);
	}
	free(r->nodes);
	free(r->related);
	free(r->actions);
}

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the pages of an address space");
}

/* ---- who is related ---- */

/* The address space that the real parent owns, if the two may still have pages in common. */
static int find_parent(struct family *f, size_t i, const ssize_t *parents, const ssize_t *owned,
		       struct error *e)
{
	struct mm_checkpoint *mm = f->c->mm;
	struct cow_node *node = &f->rel->nodes[i];
	const Reprise__Mm *msg = mm->mms.v[i].msg, *from;
	ssize_t process = parents[mm->mms.v[i].process];
	ssize_t parent = process >= 0 ? owned[process] : -1;

	node->parent = -1;
	/* younger ones cannot be parents; they can own an address space that was seen late */
	if (parent < 0 || (size_t)parent >= i)
		return 0;
	from = mm->mms.v[parent].msg;
	if (!msg->exe || from->exe != msg->exe || from->compat != msg->compat ||
	    from->vdso != msg->vdso || from->vvar != msg->vvar)
		return 0;
	if (mm_alike(from, msg, &node->alike) < 0)
		return no_memory(e);
	if (node->alike.n == 0)
		return 0;
	node->parent = parent;
	f->rel->related[i] = true;
	f->rel->related[parent] = true;
	return 0;
}

static int find_parents(struct family *f, struct error *e)
{
	struct checkpoint *c = f->c;
	_cleanup_(free_ptr) ssize_t *parents = calloc(c->processes.n + 1, sizeof(*parents));
	_cleanup_(free_ptr) ssize_t *owned = calloc(c->processes.n + 1, sizeof(*owned));
	_cleanup_(free_ptr) struct order_session *sessions = NULL;
	int r = parents && owned ? mm_process_parents(c, parents) : -ENOMEM;

	if (r >= 0)
		r = mm_process_sessions(c, parents, &sessions);
	if (r < 0)
		return no_memory(e);
	for (size_t i = 0; i < c->processes.n; i++) {
		owned[i] = -1;
		if (!order_may_inherit(sessions, i))
			parents[i] = -1;
	}
	for (size_t i = 0; i < f->rel->n; i++)
		owned[c->mm->mms.v[i].process] = (ssize_t)i;
	for (size_t i = 0; r >= 0 && i < f->rel->n; i++) {
		f->rel->nodes[i].all = &c->mm->mms.v[i].pages;
		r = find_parent(f, i, parents, owned, e);
	}
	return r;
}

/* ---- which pages they have ---- */

static int hash_page(struct family *f, size_t node, uint64_t address, uint64_t *ret,
		     struct error *e)
{
	uint8_t page[PAGE_BYTES];
	int r = pages_read_shared(f->c->proc_fd, f->c->mm->mms.v[node].tid, address, page,
				  sizeof(page), e);

	if (r >= 0)
		*ret = XXH3_64bits(page, sizeof(page)) | FRAME_HASHED;
	return r;
}

/* The shared pages of a node within some spans; both are sorted. */
static int take_within(struct family *f, size_t node, const struct span_vec *where, struct error *e)
{
	const struct cow_pages *all = &f->c->mm->mms.v[node].shared;
	size_t at = 0;

	vec_for_each (page, all) {
		struct cow_page *taken;
		uint64_t frame = page->frame;

		while (at < where->n && where->v[at].end <= page->address)
			at++;
		if (at == where->n)
			break;
		if (page->address < where->v[at].start)
			continue;
		if (!frame) {
			int r = hash_page(f, node, page->address, &frame, e);

			if (r < 0)
				return error_object(e, r, "task %d", f->c->mm->mms.v[node].tid);
			f->hashed = true;
		}
		taken = vec_push(&f->rel->nodes[node].pages);
		if (!taken)
			return no_memory(e);
		*taken = (struct cow_page){page->address, frame};
	}
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Sorts, and joins what touches. */
static void merge(struct span_vec *spans)
{
	size_t n = 0;

	if (spans->n)
		qsort(spans->v, spans->n, sizeof(*spans->v), by_start);
	for (size_t i = 0; i < spans->n; i++) {
		if (n && spans->v[i].start <= spans->v[n - 1].end) {
			if (spans->v[i].end > spans->v[n - 1].end)
				spans->v[n - 1].end = spans->v[i].end;
		} else {
			spans->v[n++] = spans->v[i];
		}
	}
	spans->n = n;
}

static int add_pages(const struct cow_pages *pages, struct span_vec *ret)
{
	struct span *last = NULL;

	vec_for_each (page, pages) {
		if (last && last->end == page->address) {
			last->end += PAGE_BYTES;
			continue;
		}
		last = vec_push(ret);
		if (!last)
			return -ENOMEM;
		*last = (struct span){page->address, page->address + PAGE_BYTES};
	}
	return 0;
}

/* First those that have a parent, within what they may have from it; then those at the top, where
 * one of the others has something. */
static int read_frames(struct family *f, struct error *e)
{
	struct span_vec seen = {};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < f->rel->n; i++) {
		if (f->rel->nodes[i].parent < 0)
			continue;
		r = take_within(f, i, &f->rel->nodes[i].alike, e);
		if (r >= 0 && add_pages(&f->rel->nodes[i].pages, &seen) < 0)
			r = no_memory(e);
	}
	merge(&seen);
	for (size_t i = 0; r >= 0 && i < f->rel->n; i++)
		if (f->rel->nodes[i].parent < 0 && f->rel->related[i])
			r = take_within(f, i, &seen, e);
	vec_free(&seen);
	return r;
}

static int compare(void *arg, uint64_t address, size_t a, size_t b)
{
	const struct family *f = arg;
	uint8_t x[PAGE_BYTES], y[PAGE_BYTES];
	int proc_fd = f->c->proc_fd;
	int r = pages_read_shared(proc_fd, f->c->mm->mms.v[a].tid, address, x, sizeof(x), NULL);

	if (r >= 0)
		r = pages_read_shared(proc_fd, f->c->mm->mms.v[b].tid, address, y, sizeof(y), NULL);
	return r < 0 ? r : memcmp(x, y, sizeof(x)) == 0;
}

int relatives_find(struct checkpoint *c, struct relatives *ret, struct error *e)
{
	struct family f = {.c = c, .rel = ret};
	size_t n = c->mm->mms.n;
	int r;

	ret->nodes = calloc(n + 1, sizeof(*ret->nodes));
	ret->related = calloc(n + 1, sizeof(*ret->related));
	ret->actions = calloc(n + 1, sizeof(*ret->actions));
	if (!ret->nodes || !ret->related || !ret->actions)
		return no_memory(e);
	ret->n = n;
	r = find_parents(&f, e);
	if (r >= 0)
		r = read_frames(&f, e);
	if (r < 0)
		return r;
	r = cow_plan(ret->nodes, n, f.hashed ? compare : NULL, &f, ret->actions);
	return r < 0 ? error_errno(e, r, E_VMA_READ, "cannot find shared pages") : 0;
}
