/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_SHARING_H
#define REPRISE_KERNEL_SHARING_H

#include "kernel/tree.h"
#include "model/restart.h"

/*
 * Tables that processes share can be shared only with the process that makes a task, so that clone
 * flags express it. Known from an image as well as from a tree that is being looked at.
 */
enum shared_table { TABLE_FILES, TABLE_FS, TABLE_MM, TABLE_UNDO, TABLES };

struct tree_tables {
	pid_t pid;
	int parent; /* index of the real one, -1: outside */
	bool zombie;
	bool leader_exited;  /* it is made with tables of its own */
	uint64_t id[TABLES]; /* 0: nobody else's */
};

/* Refuses (E_TASK_STATE) what nobody who makes a process according to the plan shares with it. */
int tree_check_tables(const struct tree_tables *t, size_t n, const struct tree_plan *plan,
		      struct error *e) must_check;
int tree_check_sharing(const struct restart *r, const struct tree_plan *plan,
		       struct error *e) must_check;

/* NULL: a zombie. */
const Reprise__Task *tree_leader(const struct restart_process *p);
/* The clone flags for the tables that a new process shares with its maker, of which `task` calls
 * clone. */
uint64_t tree_sharing(const struct restart_process *maker, const Reprise__Task *task,
		      const struct restart_process *child);

#endif
