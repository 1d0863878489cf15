/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IPC_LIMITS_H
#define REPRISE_IPC_LIMITS_H

#include "model/checkpoint.h"
#include "model/restart.h"

/* Settings of the IPC namespace below /proc/sys, for a restart that makes a new one. */
int limits_checkpoint(struct checkpoint *c, struct error *e) must_check;
int limits_validate(const struct restart *r, struct error *e) must_check;
/* As far as is permitted: what cannot be made within the limits is refused by its own name. */
void limits_restart(struct restart *r);

#endif
