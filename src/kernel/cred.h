/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_CRED_H
#define REPRISE_KERNEL_CRED_H

#include "core/scratch.h"
#include "kernel.pb-c.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/* Credentials of one thread: ids, groups, capabilities, securebits, no_new_privs. */

/* From the text of /proc/TID/status; securebits are asked of the thread itself. Pure. */
int cred_parse(const char *status, Reprise__Credentials *ret, struct scratch *s,
	       struct error *e) must_check;
int cred_validate(const Reprise__Credentials *c, struct error *e) must_check;
/*
 * Adds the calls that turn the credentials `now` into those of the image; only
 * differences need privilege, so an ordinary user can restart what is theirs.
 * Clears the parent-death signal and dumpable on the way (commit_creds()), which are set
 * afterwards.
 */
void cred_restart(struct batch *b, const Reprise__Credentials *want,
		  const Reprise__Credentials *now);

bool cred_same_ids(const Reprise__Credentials *a, const Reprise__Credentials *b);
bool cred_same_groups(const Reprise__Credentials *a, const Reprise__Credentials *b);
/*
 * The ids and groups alone. Where privilege is needed for that, it stays, by securebits that a
 * new user namespace takes away (set_cred_user_ns()).
 */
void cred_restart_ids(struct batch *b, const Reprise__Credentials *want,
		      const Reprise__Credentials *now);

#endif
