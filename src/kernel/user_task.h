/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_USER_TASK_H
#define REPRISE_KERNEL_USER_TASK_H

#include "core/scratch.h"
#include "kernel/levels.h"
#include "kernel/sharing.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * Processes in user namespaces below the root's. They are made outside of these, where pids may be
 * chosen and everything may be entered, and go there when nothing else needs that any more; those
 * with threads before these are made, since setns(2) takes who is alone. Only who is in a pid
 * namespace that belongs to a user namespace is made in the latter, since its first process is.
 */

/* What of them cannot be made again. */
int user_task_check(struct checkpoint *c, const struct tree_node *nodes,
		    const struct tree_tables *t, struct error *e) must_check;
/* All that is said of them in an image. */
int user_tasks_validate(struct restart *r, struct error *e) must_check;

/* The process, of which there is the leader only, takes on its ids and goes to one. */
int user_task_enter(struct restart *r, struct restart_process *p, uint64_t user,
		    struct error *e) must_check;
/* All that are not where they belong; the ids of the others. */
int user_tasks_enter(struct restart *r, struct error *e) must_check;
/* What a task has there, instead of what it began with. */
int user_task_now(struct restart *r, const struct restart_task *t, Reprise__Task *now,
		  struct scratch *s, struct error *e) must_check;

/*
 * How many of the numbers of a new task in a pid namespace, the innermost first, may be chosen from
 * that user namespace; to the others it has to be led.
 */
size_t user_task_chooses(const struct restart *r, uint64_t user, uint64_t space, size_t levels);

#endif
