/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_USER_IDS_H
#define REPRISE_KERNEL_USER_IDS_H

#include "core/scratch.h"
#include "kernel.pb-c.h"
#include "model/restart.h"
#include "ns.pb-c.h"

/*
 * Ids as a user namespace below the root's calls them: an image has them by the names that the
 * root's namespace has for them. Pure but for the last.
 */

/* Can a task of that user namespace that has the ids `now` take on others? */
bool user_ids_reachable(const Reprise__Container *user, const Reprise__Credentials *want,
			const Reprise__Credentials *now);
/* It does. */
int user_ids_restart(struct restart *r, struct restart_task *t, const Reprise__Credentials *now,
		     struct error *e) must_check;

#endif
