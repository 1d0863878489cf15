/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_SCHED_H
#define REPRISE_KERNEL_SCHED_H

#include "core/scratch.h"
#include "kernel.pb-c.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * Scheduling of one thread: policy, priorities, nice, affinity, I/O priority.
 * All is read and set from outside, by thread id; only the timer slack is the
 * thread's own business.
 */
int sched_checkpoint(pid_t tid, Reprise__Scheduling *ret, struct scratch *s,
		     struct error *e) must_check;
/* The refusal alone, for a task that runs. */
int sched_check(pid_t tid, struct error *e) must_check;
int sched_validate(const Reprise__Scheduling *m, struct error *e) must_check;
/* Before the credentials are given up; only what differs from `now`, what the stub has, needs
 * privilege. */
int sched_restart(pid_t tid, const Reprise__Scheduling *m, const Reprise__Scheduling *now,
		  struct error *e) must_check;

#endif
