/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_RESUME_H
#define REPRISE_OPERATION_RESUME_H

#include "kernel/tree.h"
#include "model/restart.h"

/* The end of a restart: the tree stands, memory and tables are filled. */

/* All state that is left, registers last, and the children of vfork(); every task could go on now.
 */
int resume_prepare(struct restart *r, const struct tree_plan *plan, struct error *e) must_check;
/* Lets all tasks go. stopped: each process enters a group stop instead. */
int resume_all(struct restart *r, bool stopped, struct error *e) must_check;
/* For r->warn: a problem that was allowed. */
void restart_warn(void *report, const struct error *problem);

#endif
