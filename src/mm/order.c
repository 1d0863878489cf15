/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/order.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>

#include "core/cleanup.h"

/* Where the walk stands at a node; trees can be deep, so that it keeps its own stack (the parent
 * links). */
struct place {
	size_t first_child, next_sibling; /* NONE ends the list */
	size_t child;			  /* the next one to look at in this round */
	enum { ROUND_APART, ROUND_STAGES, ROUND_LATE } round;
	uint32_t stage;
};

#define NONE SIZE_MAX

static int link_children(const struct mm_order_node *nodes, size_t n, struct place *places,
			 struct error *e)
{
	for (size_t i = n; i-- > 0;) {
		const struct mm_order_node *node = &nodes[i];

		places[i].first_child = NONE;
		places[i].next_sibling = NONE;
		if (node->parent >= 0 && (size_t)node->parent >= i)
			return error_set(e, -EINVAL, E_IMAGE_INVALID,
					 "a process stands before its parent");
		if (node->inherits &&
		    (node->late || node->parent < 0 || !nodes[node->parent].owner || !node->owner ||
		     node->stage > nodes[node->parent].last_stage))
			return error_set(e, -EINVAL, E_IMAGE_INVALID,
					 "a process inherits pages of what is not its parent");
	}
	/* from the back, so that the lists come out in order */
	for (size_t i = n; i-- > 0;) {
		if (nodes[i].parent < 0)
			continue;
		places[i].next_sibling = places[nodes[i].parent].first_child;
		places[nodes[i].parent].first_child = i;
	}
	return 0;
}

/* The next child of node i that belongs to this round, NONE if there is none. */
static size_t next_child(const struct mm_order_node *nodes, struct place *places, size_t i)
{
	struct place *at = &places[i];

	while (at->child != NONE) {
		const struct mm_order_node *child = &nodes[at->child];
		size_t found = at->child;

		at->child = places[found].next_sibling;
		if (at->round == ROUND_APART && !child->inherits && !child->late)
			return found;
		if (at->round == ROUND_LATE && child->late)
			return found;
		if (at->round == ROUND_STAGES && child->inherits && child->stage == at->stage)
			return found;
	}
	return NONE;
}

/* All children of a round have been made: what comes then? Returns 1 when the node is done. */
static int next_round(const struct mm_order_node *nodes, struct place *places, size_t i,
		      mm_step_fn step, void *arg, struct error *e)
{
	struct place *at = &places[i];
	bool filled = at->round == ROUND_STAGES && at->stage == nodes[i].last_stage;
	int r;

	if (at->round == ROUND_LATE)
		return 1;
	if (filled || !nodes[i].owner) {
		at->round = ROUND_LATE;
		at->child = at->first_child;
		return 0;
	}
	if (at->round == ROUND_APART) {
		r = step(arg, i, MM_STEP_BUILD, 0, e);
		if (r < 0)
			return r;
		at->round = ROUND_STAGES;
		at->stage = 0;
	} else {
		at->stage++;
	}
	at->child = at->first_child;
	r = step(arg, i, MM_STEP_FILL, at->stage, e);
	return r < 0 ? r : 0;
}

static int enter(struct place *places, size_t i, mm_step_fn step, void *arg, struct error *e)
{
	places[i].round = ROUND_APART;
	places[i].child = places[i].first_child;
	return step(arg, i, MM_STEP_FORK, 0, e);
}

bool order_is_late(const struct order_session *nodes, size_t i)
{
	ssize_t at = nodes[i].parent;

	if (at < 0 || nodes[i].sid == nodes[i].pid)
		return false;
	for (; at >= 0; at = nodes[at].parent)
		if (nodes[at].sid == nodes[i].sid)
			return false;
	return true;
}

bool order_may_inherit(const struct order_session *nodes, size_t i)
{
	return nodes[i].parent >= 0 &&
	       (nodes[i].sid == nodes[i].pid || nodes[i].sid == nodes[nodes[i].parent].sid);
}

static int walk_root(const struct mm_order_node *nodes, struct place *places, size_t root,
		     mm_step_fn step, void *arg, struct error *e)
{
	size_t i = root;
	int r = enter(places, i, step, arg, e);

	while (r >= 0) {
		size_t child = next_child(nodes, places, i);

		if (child != NONE) {
			i = child;
			r = enter(places, i, step, arg, e);
			continue;
		}
		r = next_round(nodes, places, i, step, arg, e);
		if (r != 1)
			continue;
		if (i == root)
			return 0;
		i = (size_t)nodes[i].parent;
	}
	return r;
}

int mm_walk(const struct mm_order_node *nodes, size_t n, mm_step_fn step, void *arg,
	    struct error *e)
{
	_cleanup_(free_ptr) struct place *places = calloc(n ? n : 1, sizeof(*places));
	int r;

	if (!places)
		return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the order of processes");
	r = link_children(nodes, n, places, e);
	for (size_t i = 0; r >= 0 && i < n; i++)
		if (nodes[i].parent < 0)
			r = walk_root(nodes, places, i, step, arg, e);
	return r < 0 ? r : 0;
}
