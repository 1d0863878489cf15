/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_RELATIVES_H
#define REPRISE_MM_RELATIVES_H

#include "mm/cow.h"
#include "mm/state.h"

/* The address spaces of a tree and what they share; indices are those of c->mm->mms. */
struct relatives {
	size_t n;
	struct cow_node *nodes;
	bool *related; /* has a parent or children to share with */
	struct cow_actions *actions;
};

int relatives_find(struct checkpoint *c, struct relatives *ret, struct error *e) must_check;
void relatives_free(struct relatives *r);
/* Fills in pages, stages and parents of all records, and the runs of the page groups. Pure. */
int mm_share_apply(struct mm_checkpoint *mm, const struct relatives *rel) must_check;

#endif
