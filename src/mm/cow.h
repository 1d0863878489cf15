/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_COW_H
#define REPRISE_MM_COW_H

#include <sys/types.h>

#include "mm/pagemap.h"
#include "mm/vma.h"

/*
 * Pages that fork has left shared copy-on-write between relatives are stored once and
 * shared again: by fork, at restart.
 *
 * What two address spaces share at an address has come down from a common
 * ancestor by forks, though the ancestor may hold something else by now (pre-forked workers share
 *pages that their parent has written to since). So the highest of those that share a page, or the
 *ancestor that joins them, gets it before it forks the first that wants it, and each on the way
 *down hands it on. What an address space holds at an address may thus change several times while it
 *forks, before it becomes what was saved:
 *
 *	slot of child c		contents that are put in place before c is forked
 *	last slot		what is its own; what was held for children only is dropped
 *
 * Only parents that fork themselves what they share are considered (real parents that own their
 * address spaces), only places with a private mapping of the same thing in both (mm_alike()).
 */
struct cow_page {
	uint64_t address;
	uint64_t frame; /* what stands there: equal for equal pages; never 0 */
};

struct cow_pages {
	struct cow_page *v;
	size_t n, cap;
};

/* An address space. Parents come before children; the order of children is that of their being
 * forked. */
struct cow_node {
	ssize_t parent;		      /* index, -1: none to inherit from */
	struct cow_pages pages;	      /* those that are mapped more than once; sorted */
	struct span_vec alike;	      /* with the parent */
	const struct page_spans *all; /* contents and guard pages */
};

enum cow_kind {
	COW_KEPT,    /* inherited from the parent at fork, and needed */
	COW_STORED,  /* put in place before child `slot` is forked; contents are read from `source`
		      */
	COW_THERE,   /* of the node's own final contents, in place before the last slot */
	COW_DROPPED, /* held for children, and not part of its final contents: given up in the last
			slot */
};

struct cow_action {
	enum cow_kind kind;
	uint64_t start, end;
	size_t slot, source; /* indices of nodes; 0 where they mean nothing */
};

struct cow_actions {
	struct cow_action *v; /* sorted by kind, slot, address */
	size_t n, cap;
};

/*
 * Are the pages of two nodes at an address really equal? NULL: frames are
 * proof. Returns 1, 0 or a negative errno.
 */
typedef int (*cow_compare)(void *arg, uint64_t address, size_t a, size_t b);

/* ret: one list for each node, empty at first. Pure but for `compare`. */
int cow_plan(const struct cow_node *nodes, size_t n, cow_compare compare, void *arg,
	     struct cow_actions *ret) must_check;

#endif
