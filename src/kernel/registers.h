/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_REGISTERS_H
#define REPRISE_KERNEL_REGISTERS_H

#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * Where a thread goes on: registers, extended state, signal mask, and what is left of the time for
 * which it sleeps in a system call.
 */
int registers_checkpoint(struct checkpoint *c, struct checkpoint_process *p,
			 const struct frozen_thread *t, Reprise__Task *msg, struct scratch *s,
			 struct error *e) must_check;
int registers_validate(const Reprise__Task *m, struct error *e) must_check;
/* They are those of such a program; after registers_validate(). */
int registers_validate_width(const Reprise__Task *m, bool compat, struct error *e) must_check;
/* A thread that slept in a system call with a time-out is put to sleep again; before the rest. */
int registers_restart_sleep(struct restart_task *t, struct error *e) must_check;
/* All of it; the task is ready to be let go. */
int registers_restart(struct restart_task *t, struct error *e) must_check;

#endif
