/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_CLONE_H
#define REPRISE_KERNEL_CLONE_H

#include "kernel/levels.h"
#include "kernel/tree.h"
#include "model/restart.h"

/*
 * Carrying out the plan of a tree: making tasks in their real parents, with
 * their ids, and placing them in sessions and groups.
 */

/* The nodes of the plan, one for each of r->processes; to be freed. */
int tree_nodes(const struct restart *r, struct tree_node **ret, struct error *e) must_check;

/* The root stub exists, is traced and holds nothing but the agent. Its address space is built on
 * the way (mm room). */
typedef int (*tree_session_fn)(struct restart *r, struct restart_process *p, struct error *e);
/* `session` is called for each process that has begun a session, before it has children in it. */
int tree_make(struct restart *r, const struct tree_plan *plan, tree_session_fn session,
	      struct error *e) must_check;

/*
 * Then those for which their parents wait in vfork(): each is made by its parent, which is
 * complete but for its registers, and completed by the function before it is the turn of the next.
 */
typedef int (*tree_complete_fn)(struct restart *r, struct restart_process *p, struct error *e);
int tree_make_late(struct restart *r, const struct tree_plan *plan, tree_session_fn session,
		   tree_complete_fn complete, struct error *e) must_check;
/* What a task is called in the pid namespace of the root, or so many levels below; 0: it has gone.
 */
pid_t tree_pid_at(struct restart *r, pid_t pid, pid_t tid, size_t depth);

/* Adopts a new stub that is traced and stopped: waits for its first stop and makes its agent. */
int stub_adopt(struct restart *r, struct restart_process *p, pid_t pid, uint64_t agent_at,
	       struct error *e) must_check;
/* Makes it a program of the width that it had. shared: CLONE_*, with who made it. */
int stub_program(struct restart *r, struct restart_process *p, uint64_t shared,
		 struct error *e) must_check;

/* ---- for those who make tasks ---- */

/* Adds clone3() with chosen ids to a batch; these stand behind the arguments. */
int clone_add(struct batch *b, uint64_t flags, int exit_signal, const struct levels *ids);
int clone_failed(long res, pid_t vpid, struct error *e);
/* The other threads of a process, each with its own tables and in its namespaces. */
int threads_make(struct restart *r, struct restart_process *p, struct error *e) must_check;

#endif
