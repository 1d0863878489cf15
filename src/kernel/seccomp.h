/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_SECCOMP_H
#define REPRISE_KERNEL_SECCOMP_H

#include "core/scratch.h"
#include "kernel.pb-c.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/* Secure computing: strict mode, and filters in the order in which they were installed. */

/* mode: from /proc/TID/status. Only CAP_SYS_ADMIN in the initial user namespace may read filters.
 */
int seccomp_checkpoint(pid_t tid, unsigned int mode, Reprise__Task *msg, struct scratch *s,
		       struct error *e) must_check;
/* The same refusals, from the kernel's memory: `filter` is the latest one of a task that runs. */
int seccomp_look(struct kernel_memory *k, uint64_t filter, struct error *e) must_check;
int seccomp_validate(const Reprise__Task *msg, struct error *e) must_check;
/*
 * Installs them: the last thing that a task does before its registers are set.
 * While reprise holds the task its filters are suspended (PTRACE_O_SUSPEND_SECCOMP).
 */
int seccomp_restart(struct restart_task *t, const Reprise__Task *now, struct error *e) must_check;

#endif
