/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_RLIMIT_H
#define REPRISE_KERNEL_RLIMIT_H

#include "core/scratch.h"
#include "kernel.pb-c.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/* Resource limits of a process, read and set from outside. */

/* The text of /proc/PID/limits. Pure. */
int rlimits_parse(const char *text, Reprise__Process *msg, struct scratch *s,
		  struct error *e) must_check;
int rlimits_checkpoint(struct checkpoint *c, const struct checkpoint_process *p,
		       Reprise__Process *msg, struct scratch *s, struct error *e) must_check;
int rlimits_validate(const Reprise__Process *msg, struct error *e) must_check;
/* Raises nothing that need not be raised: that would need CAP_SYS_RESOURCE. */
int rlimits_restart(const struct restart_process *p, struct error *e) must_check;

/*
 * The hard ones only, as far as they are lower: before a process goes where it may not raise them
 * itself, and we cannot reach them (a user namespace, without CAP_SYS_RESOURCE of ours).
 */
int rlimits_raise(const struct restart *r, const struct restart_process *p,
		  struct error *e) must_check;
/* By the process itself, which may not be ours to change any more. */
int rlimits_restart_inside(const struct restart_process *p, struct error *e) must_check;

#endif
