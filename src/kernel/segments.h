/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_SEGMENTS_H
#define REPRISE_KERNEL_SEGMENTS_H

#include "core/scratch.h"
#include "kernel.pb-c.h"
#include "model/restart.h"
#include "remote/freeze.h"

/* The segments that a thread has for itself. */
int segments_checkpoint(const struct frozen_thread *t, Reprise__Task *msg, struct scratch *s,
			struct error *e) must_check;
int segments_validate(const Reprise__Task *msg, struct error *e) must_check;
int segments_restart(const struct restart_task *t, struct error *e) must_check;

#endif
