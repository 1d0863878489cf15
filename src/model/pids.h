/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MODEL_PIDS_H
#define REPRISE_MODEL_PIDS_H

#include "model/restart.h"
#include "ns.pb-c.h"

/*
 * Pid namespaces below the root's. The pids of an image are those that the root's namespace has for
 * the tasks; by which numbers a task is known below stands with it. Whoever lets a task
 * execute a call that takes a pid has to give the number that is valid there.
 */

/* How many levels below the root's. */
size_t pid_space_depth(const struct restart *r, uint64_t space);
/* Its ancestor at a depth; itself at its own. */
uint64_t pid_space_above(const struct restart *r, uint64_t space, size_t depth);
/* Is it that space, or below it? */
bool pid_space_descends(const struct restart *r, uint64_t space, uint64_t from);
/* Its first process. */
struct restart_process *pid_space_init(struct restart *r, uint64_t space);
bool pid_space_is_init(const struct restart_process *p);

/* What a process, thread, group or session of the image is called in a pid namespace; 0: it has no
 * number there. */
pid_t restart_pid_in(const struct restart *r, pid_t vpid, uint64_t space);

#endif
