/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_HANDOVER_H
#define REPRISE_OPERATION_HANDOVER_H

#include "model/restart.h"

#define HANDOVER_TURNS 3

/*
 * A tree is handed over to itself as a whole: who is let go dies with us like those who are still
 * traced (PTRACE_O_EXITKILL), until all are on their own in one instant.
 */

/* Before a process is let go. */
int handover_add(struct restart *r, const struct restart_process *p, struct error *e) must_check;
/* In which turn a process is let go, from 0. */
int handover_turn(const struct restart *r, const struct restart_process *p);
/* From now on nobody dies with us. */
void handover_end(struct restart *r);

#endif
