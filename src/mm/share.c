/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/cleanup.h"
#include "image/store.h"
#include "mm/cow.h"
#include "mm/relatives.h"
#include "mm/state.h"

/*
 * Which process stores which page, and at which stage of the restart: turns the
 * plan of cow.c into the page ranges of the records and the runs of the page groups.
 */

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the pages of an address space");
}

/* ---- stages ---- */

/*
 * The slots of a node in which something happens become its stages, in order. The first child that
 * inherits always begins stage 0, filled or not. VEC of child indices.
 */
struct slots {
	size_t *v;
	size_t n, cap;
};

static bool inherits(const struct cow_actions *actions)
{
	return actions->n && actions->v[0].kind == COW_KEPT; /* sorted by kind */
}

static int add_slot(struct slots *slots, size_t slot)
{
	size_t *v;

	if (slots->n && slots->v[slots->n - 1] >= slot)
		return 0;
	v = vec_push(slots);
	if (!v)
		return -ENOMEM;
	*v = slot;
	return 0;
}

static int find_slots(const struct cow_actions *actions, size_t first_child, struct slots *ret)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < actions->n; i++) {
		if (actions->v[i].kind != COW_STORED)
			continue;
		if (first_child < actions->v[i].slot)
			r = add_slot(ret, first_child);
		if (r >= 0)
			r = add_slot(ret, actions->v[i].slot);
	}
	if (r >= 0 && first_child != SIZE_MAX)
		r = add_slot(ret, first_child);
	return r;
}

/* The stage after which a child is forked, or which fills a slot. */
static uint32_t stage_of(const struct slots *slots, size_t slot)
{
	uint32_t stage = 0;

	while (stage + 1 < slots->n && slots->v[stage + 1] <= slot)
		stage++;
	return stage;
}

/* ---- one address space ---- */

struct sharing {
	const struct mm_state *all;
	struct mm_state *m;
	size_t index;
	const struct cow_actions *actions;
	struct slots slots;
	uint32_t last;
	size_t room; /* in m->msg->pages */
};

static int put_range(struct sharing *s, uint64_t start, uint64_t end, enum page_kind kind,
		     uint32_t stage)
{
	Reprise__Mm *msg = s->m->msg;
	Reprise__PageRange *range;

	if (msg->n_pages == s->room) {
		size_t room = s->room ? s->room * 2 : 64;
		Reprise__PageRange **bigger = scratch_alloc(s->m->scratch, room * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		if (s->room)
			memcpy(bigger, msg->pages, s->room * sizeof(*bigger));
		msg->pages = bigger;
		s->room = room;
	}
	range = scratch_message(s->m->scratch, Reprise__PageRange, reprise__page_range__init);
	if (!range)
		return -ENOMEM;
	range->start = start;
	range->length = end - start;
	range->kind = kind;
	range->stage = stage;
	msg->pages[msg->n_pages++] = range;
	return 0;
}

static int put_run(struct sharing *s, uint64_t start, uint64_t end, size_t source, uint32_t stage,
		   bool shared)
{
	struct content_run *run;

	if (start >= end)
		return 0;
	run = vec_push(&s->m->contents);
	if (!run)
		return -ENOMEM;
	*run = (struct content_run){start, end, source, stage, shared, STORE_NONE};
	return 0;
}

/* The first shared page at or above an address. */
static size_t find_shared(const struct cow_pages *pages, uint64_t address)
{
	return bisect(pages->n, i, pages->v[i].address >= address);
}

/* Runs of pages that are read in the one way or the other. */
static int put_contents(struct sharing *s, uint64_t start, uint64_t end, size_t source,
			uint32_t stage)
{
	const struct cow_pages *shared = &s->all[source].shared;
	size_t i = find_shared(shared, start);
	uint64_t at = start;
	int r = 0;

	while (r >= 0 && i < shared->n && shared->v[i].address < end) {
		uint64_t first = shared->v[i].address, next = first;

		for (; i < shared->n && shared->v[i].address == next && next < end; i++)
			next += PAGE_BYTES;
		r = put_run(s, at, first, source, stage, false);
		if (r >= 0)
			r = put_run(s, first, next, source, stage, true);
		at = next;
	}
	if (r >= 0)
		r = put_run(s, at, end, source, stage, false);
	if (r < 0)
		return r;
	s->m->msg->page_bytes += end - start;
	return put_range(s, start, end, PAGE_OWN, stage);
}

static int put_kind(struct sharing *s, enum cow_kind kind, enum page_kind as, uint32_t stage)
{
	for (size_t i = 0; i < s->actions->n; i++) {
		const struct cow_action *a = &s->actions->v[i];

		if (a->kind == kind && put_range(s, a->start, a->end, as, stage) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* What is put in place for children; sorted by slot, and so by stage. */
static int put_stored(struct sharing *s)
{
	for (size_t i = 0; i < s->actions->n; i++) {
		const struct cow_action *a = &s->actions->v[i];

		if (a->kind == COW_STORED &&
		    put_contents(s, a->start, a->end, a->source, stage_of(&s->slots, a->slot)) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* A span of the page table, without what is in place by then. `at` moves along the actions. */
static int put_rest(struct sharing *s, const struct page_span *span, size_t *at)
{
	uint64_t start = span->start;
	int r = 0;

	for (; *at < s->actions->n && s->actions->v[*at].kind == COW_THERE; (*at)++) {
		const struct cow_action *a = &s->actions->v[*at];

		if (a->start >= span->end)
			break;
		if (a->start > start)
			r = put_contents(s, start, a->start, s->index, s->last);
		if (r < 0)
			return r;
		if (a->end > start)
			start = a->end;
		if (a->end > span->end)
			break; /* goes on in the next span */
	}
	return start < span->end ? put_contents(s, start, span->end, s->index, s->last) : 0;
}

static int put_own(struct sharing *s)
{
	size_t at = 0;

	while (at < s->actions->n && s->actions->v[at].kind < COW_THERE)
		at++;
	vec_for_each (span, &s->m->pages) {
		int r = span->guard ? put_range(s, span->start, span->end, PAGE_GUARD, s->last)
				    : put_rest(s, span, &at);

		if (r < 0)
			return r;
	}
	return 0;
}

static int by_stage(const void *a, const void *b)
{
	const Reprise__PageRange *x = *(Reprise__PageRange *const *)a;
	const Reprise__PageRange *y = *(Reprise__PageRange *const *)b;

	if (x->stage != y->stage)
		return x->stage < y->stage ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start;
}

static int put_all(struct sharing *s)
{
	int r = put_kind(s, COW_KEPT, PAGE_INHERITED, 0);

	/* its own pages come after its children have been forked: they would only be copied to them
	 * to be dropped there */
	s->last = (uint32_t)s->slots.n;
	if (r >= 0)
		r = put_stored(s);
	if (r >= 0)
		r = put_kind(s, COW_DROPPED, PAGE_DROPPED, s->last);
	if (r >= 0)
		r = put_own(s);
	if (s->m->msg->n_pages)
		qsort(s->m->msg->pages, s->m->msg->n_pages, sizeof(*s->m->msg->pages), by_stage);
	s->m->msg->last_stage = s->last;
	return r;
}

/* For each address space the first child that inherits from it, SIZE_MAX: none. */
static void first_children(const struct relatives *rel, size_t *ret)
{
	for (size_t i = 0; i < rel->n; i++)
		ret[i] = SIZE_MAX;
	for (size_t i = rel->n; i-- > 0;)
		if (rel->nodes[i].parent >= 0 && inherits(&rel->actions[i]))
			ret[rel->nodes[i].parent] = i;
}

/* Parents come first, so that their stages are known when their children are looked at. */
int mm_share_apply(struct mm_checkpoint *mm, const struct relatives *rel)
{
	struct slots *slots = calloc(rel->n + 1, sizeof(*slots));
	_cleanup_(free_ptr) size_t *first = calloc(rel->n + 1, sizeof(*first));
	int r = slots && first ? 0 : -ENOMEM;

	if (r >= 0)
		first_children(rel, first);
	for (size_t i = 0; r >= 0 && i < rel->n; i++) {
		struct sharing s = {.all = mm->mms.v,
				    .m = &mm->mms.v[i],
				    .index = i,
				    .actions = &rel->actions[i]};

		r = find_slots(s.actions, first[i], &slots[i]);
		s.slots = slots[i];
		if (r >= 0)
			r = put_all(&s);
		if (r >= 0 && inherits(s.actions)) {
			size_t parent = (size_t)rel->nodes[i].parent;

			s.m->msg->parent = mm->mms.v[parent].id;
			s.m->msg->parent_stage = stage_of(&slots[parent], i);
		}
	}
	for (size_t i = 0; slots && i < rel->n; i++)
		vec_free(&slots[i]);
	free(slots);
	return r;
}

int mm_share(struct checkpoint *c, struct error *e)
{
	_cleanup_(relatives_free) struct relatives rel = {};
	int r = relatives_find(c, &rel, e);

	if (r < 0)
		return r;
	return mm_share_apply(c->mm, &rel) < 0 ? no_memory(e) : 0;
}
