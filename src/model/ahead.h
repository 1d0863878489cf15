/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MODEL_AHEAD_H
#define REPRISE_MODEL_AHEAD_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Work on many items that another thread can do, some items ahead of the one who needs the
 * results: what /proc tells of a tree of many tasks, for instance, is a fifth of all work, and
 * asks nothing of the tasks.
 */
struct ahead;

/*
 * A thread that waits for work, with so much memory at hand. Returns NULL if there is none to be
 * had; what was not done ahead is then done where it is needed.
 */
struct ahead *ahead_new(size_t memory);
/* Begins, once, to call fn(arg, i) for all i from `first` on and below n, in their order. */
void ahead_begin(struct ahead *a, size_t first, size_t n, void (*fn)(void *arg, size_t i),
		 void *arg);
/* Returns when item i is done. NULL: nothing to wait for. Items are asked for in their order. */
void ahead_wait(struct ahead *a, size_t i);
/* NULL: nothing is. */
bool ahead_is_done(struct ahead *a, size_t i);
/* Waits for the item that is being worked on, leaves out the others, and frees. NULL is allowed. */
void ahead_end(struct ahead *a);

#endif
