/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "mm/order.h"
#include "mm/relatives.h"
#include "unit.h"

/*
 * Families of processes fork, write, give up and unmap pages at random; then a
 * restart is played from what is planned. Every page must come back with its contents, and
 * exactly those that were shared must be shared again.
 */
enum { NODES = 9, PAGES = 10 };

struct world {
	size_t n;
	ssize_t parent[NODES];
	uint64_t frame[NODES][PAGES]; /* 0: no page */
	bool gone[NODES][PAGES];      /* unmapped: since when it is not alike with relatives */
	bool any_gone;
};

static uint64_t address(size_t page)
{
	return 0x10000 + page * PAGE_BYTES;
}

static void live(struct world *w, size_t events)
{
	uint64_t next = 1;

	*w = (struct world){.n = 1, .parent = {-1}};
	for (size_t i = 0; i < events; i++) {
		size_t node = (size_t)rand() % w->n, page = (size_t)rand() % PAGES;
		int what = rand() % 100;

		if (what < 12 && w->n < NODES) {
			w->parent[w->n] = (ssize_t)node;
			memcpy(w->frame[w->n], w->frame[node], sizeof(w->frame[0]));
			memcpy(w->gone[w->n], w->gone[node], sizeof(w->gone[0]));
			w->n++;
		} else if (what < 80) {
			if (!w->gone[node][page])
				w->frame[node][page] = next++;
		} else if (what < 98) {
			w->frame[node][page] = 0;
		} else {
			w->frame[node][page] = 0;
			w->gone[node][page] = true;
			w->any_gone = true;
		}
	}
}

static size_t users(const struct world *w, uint64_t frame)
{
	size_t n = 0;

	for (size_t i = 0; i < w->n; i++)
		for (size_t page = 0; page < PAGES; page++)
			n += w->frame[i][page] == frame;
	return n;
}

static void describe_node(const struct world *w, size_t i, struct cow_node *node,
			  struct mm_state *m)
{
	node->parent = w->parent[i];
	node->all = &m->pages;
	for (size_t page = 0; page < PAGES; page++) {
		uint64_t at = address(page);

		if (w->frame[i][page]) {
			struct page_span *span = m->pages.n ? &m->pages.v[m->pages.n - 1] : NULL;

			if (span && span->end == at)
				span->end += PAGE_BYTES;
			else
				*(struct page_span *)vec_push(&m->pages) =
					(struct page_span){at, at + PAGE_BYTES, false};
			if (users(w, w->frame[i][page]) > 1)
				*(struct cow_page *)vec_push(&node->pages) =
					(struct cow_page){at, w->frame[i][page]};
		}
		if (node->parent >= 0 && !w->gone[i][page] && !w->gone[node->parent][page])
			*(struct span *)vec_push(&node->alike) = (struct span){at, at + PAGE_BYTES};
	}
}

/* What a restart makes of it. */
struct replay {
	const struct world *w;
	struct mm_checkpoint *mm;
	struct {
		uint64_t content;
		uint64_t physical; /* 0: none */
	} page[NODES][PAGES];
	uint64_t next;
	size_t stored;
};

static size_t page_of(uint64_t at)
{
	return (at - address(0)) / PAGE_BYTES;
}

static bool inherited(const Reprise__Mm *msg, uint64_t at)
{
	for (size_t i = 0; i < msg->n_pages; i++)
		if (msg->pages[i]->kind == PAGE_INHERITED && at >= msg->pages[i]->start &&
		    at < msg->pages[i]->start + msg->pages[i]->length)
			return true;
	return false;
}

static void replay_fill(struct replay *r, size_t node, uint32_t stage)
{
	const struct mm_state *m = &r->mm->mms.v[node];

	for (size_t i = 0; i < m->msg->n_pages; i++) {
		const Reprise__PageRange *range = m->msg->pages[i];

		if (range->kind == PAGE_DROPPED && range->stage == stage)
			for (size_t b = 0; b < range->length; b += PAGE_BYTES)
				r->page[node][page_of(range->start + b)].physical = 0;
	}
	vec_for_each (run, &m->contents) {
		if (run->stage != stage)
			continue;
		for (uint64_t at = run->start; at < run->end; at += PAGE_BYTES) {
			size_t page = page_of(at);

			r->page[node][page].content = r->w->frame[run->source][page];
			r->page[node][page].physical = r->next++;
			r->stored++;
			assert_int_not_equal(r->page[node][page].content, 0);
		}
	}
}

static int replay_step(void *arg, size_t node, enum mm_step step, uint32_t stage, struct error *e)
{
	struct replay *r = arg;
	ssize_t parent = r->w->parent[node];
	const Reprise__Mm *msg = r->mm->mms.v[node].msg;

	if (step == MM_STEP_FORK && parent >= 0)
		memcpy(r->page[node], r->page[parent], sizeof(r->page[0]));
	if (step == MM_STEP_BUILD)
		for (size_t page = 0; page < PAGES; page++)
			if (!inherited(msg, address(page)))
				r->page[node][page].physical = 0;
	if (step == MM_STEP_FILL)
		replay_fill(r, node, stage);
	return 0;
}

static size_t distinct(const struct world *w)
{
	size_t n = 0;

	for (size_t i = 0; i < w->n; i++)
		for (size_t page = 0; page < PAGES; page++) {
			bool seen = !w->frame[i][page];

			for (size_t j = 0; j < i; j++)
				seen = seen || w->frame[j][page] == w->frame[i][page];
			n += !seen;
		}
	return n;
}

static void check_world(const struct world *w, const struct replay *r)
{
	/* nothing is stored twice, and nothing that nobody has in the end */
	if (!w->any_gone)
		assert_int_equal(r->stored, distinct(w));
	for (size_t i = 0; i < w->n; i++) {
		for (size_t page = 0; page < PAGES; page++) {
			uint64_t frame = w->frame[i][page];

			assert_int_equal(frame != 0, r->page[i][page].physical != 0);
			if (frame)
				assert_int_equal(r->page[i][page].content, frame);
			if (!frame || w->any_gone)
				continue;
			for (size_t j = 0; j < i; j++)
				assert_int_equal(frame == w->frame[j][page],
						 r->page[i][page].physical ==
							 r->page[j][page].physical);
		}
	}
}

static void one_world(size_t events)
{
	struct world w;
	struct mm_checkpoint mm = {};
	struct cow_node nodes[NODES] = {};
	struct cow_actions actions[NODES] = {};
	bool related[NODES];
	struct mm_order_node order[NODES] = {};
	struct relatives rel = {.nodes = nodes, .related = related, .actions = actions};
	struct replay r = {.w = &w, .mm = &mm, .next = 1};

	live(&w, events);
	rel.n = w.n;
	for (size_t i = 0; i < w.n; i++)
		assert_non_null(vec_push(&mm.mms));
	for (size_t i = 0; i < w.n; i++) {
		struct mm_state *m = &mm.mms.v[i];

		m->id = i + 1;
		m->scratch = &mm.scratch;
		m->msg = scratch_message(m->scratch, Reprise__Mm, reprise__mm__init);
		describe_node(&w, i, &nodes[i], m);
		related[i] = true;
	}
	assert_int_equal(cow_plan(nodes, w.n, NULL, NULL, actions), 0);
	assert_int_equal(mm_share_apply(&mm, &rel), 0);
	for (size_t i = 0; i < w.n; i++) {
		const Reprise__Mm *msg = mm.mms.v[i].msg;

		order[i] = (struct mm_order_node){.parent = w.parent[i],
						  .owner = true,
						  .inherits = msg->parent != 0,
						  .stage = msg->parent_stage,
						  .last_stage = msg->last_stage};
		for (size_t j = 1; j < msg->n_pages; j++) /* as validated by a restart */
			assert_true(msg->pages[j - 1]->stage < msg->pages[j]->stage ||
				    (msg->pages[j - 1]->stage == msg->pages[j]->stage &&
				     msg->pages[j - 1]->start + msg->pages[j - 1]->length <=
					     msg->pages[j]->start));
	}
	assert_int_equal(mm_walk(order, w.n, replay_step, &r, NULL), 0);
	check_world(&w, &r);
	for (size_t i = 0; i < w.n; i++) {
		vec_free(&nodes[i].pages);
		vec_free(&nodes[i].alike);
		vec_free(&actions[i]);
		vec_free(&mm.mms.v[i].pages);
		vec_free(&mm.mms.v[i].contents);
	}
	vec_free(&mm.mms);
	scratch_free(&mm.scratch);
}

static void test_random_families(void **state)
{
	srand(1);
	for (int i = 0; i < 5000; i++)
		one_world((size_t)rand() % 80);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_families),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
