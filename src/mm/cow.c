/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/cow.h"

#include <errno.h>
#include <stdlib.h>

#include "core/cleanup.h"

/* A node's page at the address that is looked at. */
struct entry {
	size_t node;
	uint64_t frame;
};

/* What is known of a node at that address. */
struct here {
	uint64_t want;	/* frame that its subtree wants from the parent, 0 none */
	size_t source;	/* who has it */
	uint64_t final; /* frame of its own that takes part in sharing, 0 none */
	uint64_t holds; /* what it holds, as its children are forked one by one; 0 nothing that
			   matters */
	bool decided;	/* whether it keeps what it has inherited */
	bool touched;	/* in the list of touched nodes */
	size_t span;	/* index into alike, from the last address: addresses ascend */
	size_t next;	/* index into pages */
};

struct plan {
	const struct cow_node *nodes;
	size_t n;
	cow_compare compare;
	void *arg;
	struct cow_actions *actions;
	struct here *here;
	size_t *heap, nheap;   /* nodes by the address of their next page */
	struct entry *entries; /* of the present address, room for all nodes */
	size_t nentries;
	size_t *touched, ntouched;
};

/* ---- the next address, in ascending order over all nodes ---- */

static uint64_t next_address(const struct plan *p, size_t node)
{
	return p->nodes[node].pages.v[p->here[node].next].address;
}

static bool before(const struct plan *p, size_t a, size_t b)
{
	uint64_t x = next_address(p, a), y = next_address(p, b);

	return x < y || (x == y && a < b);
}

static void sift_down(struct plan *p, size_t i)
{
	for (;;) {
		size_t least = i, node = p->heap[i];

		for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < p->nheap; child++)
			if (before(p, p->heap[child], p->heap[least]))
				least = child;
		if (least == i)
			return;
		p->heap[i] = p->heap[least];
		p->heap[least] = node;
		i = least;
	}
}

static void make_heap(struct plan *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->nodes[i].pages.n)
			p->heap[p->nheap++] = i;
	for (size_t i = p->nheap / 2; i-- > 0;)
		sift_down(p, i);
}

/* Collects all pages at the lowest address that is left. */
static uint64_t gather(struct plan *p)
{
	uint64_t address = next_address(p, p->heap[0]);

	p->nentries = 0;
	while (p->nheap && next_address(p, p->heap[0]) == address) {
		size_t node = p->heap[0];
		const struct cow_pages *pages = &p->nodes[node].pages;

		p->entries[p->nentries++] =
			(struct entry){node, pages->v[p->here[node].next].frame};
		if (++p->here[node].next == pages->n)
			p->heap[0] = p->heap[--p->nheap];
		sift_down(p, 0);
	}
	return address;
}

static int by_frame(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->frame != y->frame)
		return x->frame < y->frame ? -1 : 1;
	return x->node < y->node ? -1 : x->node > y->node;
}

/* ---- who wants what ---- */

/* The lowest common ancestor; parents have smaller indices. -1: not related. */
static ssize_t join(const struct plan *p, ssize_t a, ssize_t b)
{
	while (a != b && a >= 0 && b >= 0) {
		if (a > b)
			a = p->nodes[a].parent;
		else
			b = p->nodes[b].parent;
	}
	return a == b ? a : -1;
}

static bool alike_here(struct plan *p, size_t node, uint64_t address)
{
	const struct span_vec *alike = &p->nodes[node].alike;
	size_t *i = &p->here[node].span;

	while (*i < alike->n && alike->v[*i].end <= address)
		(*i)++;
	return *i < alike->n && alike->v[*i].start <= address;
}

/* Can this frame come down from `top` to the node, past what others want on the way? */
static bool way_down(struct plan *p, size_t top, size_t node, uint64_t address, uint64_t frame)
{
	for (; node != top; node = (size_t)p->nodes[node].parent)
		if (!alike_here(p, node, address) ||
		    (p->here[node].want && p->here[node].want != frame))
			return false;
	return true;
}

static void touch(struct plan *p, size_t node)
{
	if (p->here[node].touched)
		return;
	p->here[node].touched = true;
	p->touched[p->ntouched++] = node;
}

/* The members that share one frame; marks the way from the highest to each of them. */
static int share_class(struct plan *p, uint64_t address, struct entry *members, size_t n)
{
	ssize_t top = (ssize_t)members[0].node;
	size_t sharing = 0;

	for (size_t i = 1; i < n && top >= 0; i++)
		top = join(p, top, (ssize_t)members[i].node);
	if (top < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		bool ok = way_down(p, (size_t)top, members[i].node, address, members[i].frame);

		if (ok && i && p->compare) {
			int r = p->compare(p->arg, address, members[0].node, members[i].node);

			if (r < 0)
				return r;
			ok = r;
		}
		if (ok)
			members[sharing++] = members[i];
		else if (i == 0)
			return 0; /* compared with the first: rare enough to give up */
	}
	if (sharing < 2)
		return 0;
	touch(p, (size_t)top);
	for (size_t i = 0; i < sharing; i++) {
		size_t node = members[i].node;

		p->here[node].final = members[i].frame;
		touch(p, node);
		for (; node != (size_t)top; node = (size_t)p->nodes[node].parent) {
			p->here[node].want = members[i].frame;
			p->here[node].source = members[0].node;
			touch(p, node);
		}
	}
	return 0;
}

static int find_classes(struct plan *p, uint64_t address)
{
	qsort(p->entries, p->nentries, sizeof(*p->entries), by_frame);
	for (size_t i = 0, j; i < p->nentries; i = j) {
		int r;

		for (j = i + 1; j < p->nentries && p->entries[j].frame == p->entries[i].frame; j++)
			;
		r = j - i > 1 ? share_class(p, address, p->entries + i, j - i) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- what is done about it ---- */

static int act(struct plan *p, size_t node, enum cow_kind kind, uint64_t address, size_t slot,
	       size_t source)
{
	struct cow_actions *actions = &p->actions[node];
	struct cow_action *a;

	/* the page before mostly went the same way; a few actions apart from each other */
	for (size_t back = 1; back <= 4 && back <= actions->n; back++) {
		a = &actions->v[actions->n - back];
		if (a->end == address && a->kind == kind && a->slot == slot &&
		    a->source == source) {
			a->end += PAGE_BYTES;
			return 0;
		}
	}
	a = vec_push(actions);
	if (!a)
		return -ENOMEM;
	*a = (struct cow_action){kind, address, address + PAGE_BYTES, slot, source};
	return 0;
}

/* The node's first need is known: does it keep what it was forked with? */
static int decide(struct plan *p, size_t node, uint64_t address, uint64_t need)
{
	struct here *h = &p->here[node];

	h->decided = true;
	if (!h->want || h->want != need)
		return 0;
	h->holds = h->want;
	return act(p, node, COW_KEPT, address, 0, 0);
}

/* Before child c is forked, its parent has to hold what c's subtree wants. */
static int serve(struct plan *p, size_t c, uint64_t address)
{
	size_t parent = (size_t)p->nodes[c].parent;
	struct here *h = &p->here[parent];
	uint64_t want = p->here[c].want;
	int r = 0;

	if (!h->decided)
		r = decide(p, parent, address, want);
	if (r < 0 || h->holds == want)
		return r;
	h->holds = want;
	return act(p, parent, COW_STORED, address, c, p->here[c].source);
}

static bool has_page(const struct cow_node *node, uint64_t address)
{
	size_t low = bisect(node->all->n, i, node->all->v[i].end > address);

	return low < node->all->n && node->all->v[low].start <= address;
}

static int settle(struct plan *p, size_t node, uint64_t address)
{
	struct here *h = &p->here[node];
	int r = 0;

	if (!h->decided)
		r = decide(p, node, address, h->final);
	if (r >= 0 && h->final && h->holds == h->final)
		r = act(p, node, COW_THERE, address, 0, 0);
	else if (r >= 0 && h->holds && !has_page(&p->nodes[node], address))
		r = act(p, node, COW_DROPPED, address, 0, 0);
	h->want = h->final = h->holds = 0;
	h->decided = h->touched = false;
	return r;
}

static int by_index(const void *a, const void *b)
{
	const size_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int at_address(struct plan *p, uint64_t address)
{
	int r = find_classes(p, address);

	if (p->ntouched == 0)
		return r;
	qsort(p->touched, p->ntouched, sizeof(*p->touched), by_index);
	for (size_t i = 0; r >= 0 && i < p->ntouched; i++)
		if (p->here[p->touched[i]].want)
			r = serve(p, p->touched[i], address);
	for (size_t i = 0; r >= 0 && i < p->ntouched; i++)
		r = settle(p, p->touched[i], address);
	p->ntouched = 0;
	return r;
}

static int by_place(const void *a, const void *b)
{
	const struct cow_action *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->slot != y->slot)
		return x->slot < y->slot ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start;
}

static void plan_free(struct plan *p)
{
	free(p->here);
	free(p->heap);
	free(p->entries);
	free(p->touched);
}

int cow_plan(const struct cow_node *nodes, size_t n, cow_compare compare, void *arg,
	     struct cow_actions *ret)
{
	_cleanup_(plan_free) struct plan p = {
		.nodes = nodes,
		.n = n,
		.compare = compare,
		.arg = arg,
		.actions = ret,
		.here = calloc(n + 1, sizeof(*p.here)),
		.heap = calloc(n + 1, sizeof(*p.heap)),
		.entries = calloc(n + 1, sizeof(*p.entries)),
		.touched = calloc(n + 1, sizeof(*p.touched)),
	};
	int r = 0;

	if (!p.here || !p.heap || !p.entries || !p.touched)
		return -ENOMEM;
	make_heap(&p);
	while (r >= 0 && p.nheap)
		r = at_address(&p, gather(&p));
	for (size_t i = 0; i < n; i++)
		if (ret[i].n)
			qsort(ret[i].v, ret[i].n, sizeof(*ret[i].v), by_place);
	return r;
}
