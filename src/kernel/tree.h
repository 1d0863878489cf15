/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_TREE_H
#define REPRISE_KERNEL_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "core/error.h"
#include "core/vec.h"

/*
 * The plan by which a tree of processes is made: a list of typed steps, derived
 * from the image alone and carried out afterwards. It is a pure function, so
 * that it can be printed (`restart --plan`), compared in tests and fuzzed.
 *
 * Who may be made by whom:
 * - every process is made by its real parent (clone3 with set_tid), depth first;
 * - a session is inherited or made by setsid(2), nothing else: children in the old session of a
 *   session leader are made before its setsid();
 * - members of a session that none of their ancestors is in come when their parent is complete. A
 * leader that is a sibling makes them with CLONE_PARENT; a leader farther down makes a helper,
 * whose child is an orphan when the helper ends, adopted by the parent as a subreaper (or as init);
 * - a session whose leader has gone: CLONE_PARENT, too. A leader that has gone is played by a
 * helper with its pid, which ends when all is done;
 * - process groups come last, when all sessions are there; a group whose leader has gone gets a
 * helper, too;
 * - children that inherit copy-on-write pages are made between the stages in which their parent's
 * memory is filled, all others before it;
 * - a pid namespace begins with its first process; who is in one cannot name a group outside, and
 * is made in it: its first process is placed there by its parent, before it has children;
 * - a child for which its parent waits in vfork() comes last of all: the parent executes nothing
 * more once it is made, and has to be complete by then.
 */
struct tree_node {
	pid_t pid, pgid, sid;
	int parent; /* index of the real parent, -1: outside. Parents stand before children. */
	bool zombie;
	bool owns_mm;  /* builds and fills its address space */
	bool inherits; /* pages of the parent, after the parent's stage `after` */
	uint32_t after;
	uint32_t last_stage;
	bool subreaper;
	bool has_threads;
	bool vfork;	      /* its parent waits for it */
	uint64_t pid_space;   /* its pid namespace; 0: the root's */
	bool space_init;      /* the first process of it */
	bool foreign_group;   /* its group has no number there, */
	bool foreign_session; /* nor has its session */
};

/* Who carries out a step: the index of a process, or of a helper. */
struct tree_actor {
	bool helper;
	int index;
};

enum tree_step_type {
	STEP_FORK,	  /* actor makes `node`; its_parent: with CLONE_PARENT */
	STEP_FORK_HELPER, /* actor makes helper `node` */
	STEP_SETSID,	  /* actor */
	STEP_SUBREAPER,	  /* actor becomes one (stage 1), or is none any more (0) */
	STEP_BUILD,	  /* address space of actor */
	STEP_FILL,	  /* pages of `stage` of actor */
	STEP_THREADS,	  /* threads of actor */
	STEP_PLACE,	  /* actor puts its new child `node` into group `pgid` */
	STEP_SETPGID,	  /* actor joins (or founds) group `pgid` */
	STEP_RETIRE,	  /* helper `node` ends, reaped by actor */
	STEP_VFORK,	  /* actor makes `node`, and waits for it */
	STEP_COMPLETE,	  /* all other state of actor, which may then wait for a child of its own */
};

struct tree_step {
	enum tree_step_type type;
	struct tree_actor actor;
	int node;
	bool its_parent;
	uint32_t stage;
	pid_t pgid;
};

struct tree_helper {
	pid_t pid;
	struct tree_actor maker;
	bool retired; /* by a step of its own, before the end of the plan */
	bool any;     /* another pid will do as well, if this one is taken */
};

struct tree_plan {
	VEC(struct tree_step) steps;
	VEC(struct tree_helper) helpers;
	size_t late; /* the first step of those that wait until all others are complete */
};

/* nodes[0] is the root, which exists when the plan begins. Refuses what cannot be made
 * (E_TASK_STATE). */
int tree_plan_make(struct tree_plan *plan, const struct tree_node *nodes, size_t n,
		   struct error *e) must_check;
void tree_plan_print(const struct tree_plan *plan, const struct tree_node *nodes, FILE *f);
void tree_plan_free(struct tree_plan *plan);

#endif
