/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_ZOMBIE_H
#define REPRISE_KERNEL_ZOMBIE_H

#include "model/checkpoint.h"
#include "model/restart.h"
#include "remote/batch.h"

/* Processes that have ended and were not reaped: what is left of them is how they ended. */

/* Refuses one whose status is not ours to see: the kernel shows 0 then. */
int zombie_check(struct checkpoint *c, const struct checkpoint_process *p,
		 struct error *e) must_check;

/* Can it have ended like that? */
int zombie_validate(const Reprise__Process *msg, struct error *e) must_check;

/* Lets a captive end with a wait status. core: with the flag that it dumped core, if that can be
 * had. */
int zombie_end(struct agent *agent, pid_t pid, int status, bool core, struct error *e) must_check;
/*
 * Zombies end, after all else has been set up; leaders that exited while their threads go on do so
 * when they are let go.
 */
int zombies_make(struct restart *r, struct error *e) must_check;

#endif
