/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_ORDER_H
#define REPRISE_MM_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"

/*
 * The order in which a restart makes processes and fills their memory, and so the
 * order in which page groups stand in an image. Both sides get it from here.
 *
 *	create(P):	fork P from its parent		(it is a copy of what the parent is then)
 *			for each child that does not inherit pages: create(child)
 *			if P owns its address space:
 *				build its mappings
 *				for each stage from 0 to the last:
 *					fill the stage
 *					for each child that inherits after this stage: create(child)
 *			for each child that is late: create(child)
 *
 * Late are those whose session is that of none of their ancestors: they are made by members of
 * it, which have to be there first, and inherit nothing (order_is_late()).
 *
 * Children are taken in the order in which the processes are listed (that of the RECORD_PROCESS
 *records: parents before children, siblings by age). A process that shares the address space of
 *another (CLONE_VM) owns none; a zombie neither.
 */
struct mm_order_node {
	ssize_t parent; /* index of the process that forks it, smaller than its own; -1: a root */
	bool owner;	/* has an address space to build and fill */
	bool late;
	bool inherits;	     /* from the parent, which must be an owner */
	uint32_t stage;	     /* after this stage of the parent; if it inherits */
	uint32_t last_stage; /* of its own filling; if it is an owner */
};

/* Sessions of the same processes. */
struct order_session {
	pid_t pid, sid;
	ssize_t parent; /* as above */
};
bool order_is_late(const struct order_session *nodes, size_t i);
/*
 * Can a restart let it inherit pages? Not if it is in a session that its parent is not in: then it
 * is not the parent that forks it, or not with the memory that it has in the end.
 */
bool order_may_inherit(const struct order_session *nodes, size_t i);

enum mm_step { MM_STEP_FORK, MM_STEP_BUILD, MM_STEP_FILL };

/* A negative return ends the walk with it. */
typedef int (*mm_step_fn)(void *arg, size_t node, enum mm_step step, uint32_t stage,
			  struct error *e);

int mm_walk(const struct mm_order_node *nodes, size_t n, mm_step_fn step, void *arg,
	    struct error *e) must_check;

#endif
