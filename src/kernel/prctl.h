/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_PRCTL_H
#define REPRISE_KERNEL_PRCTL_H

#include "kernel.pb-c.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * What a task tells by prctl(2) only. A kernel that lacks an option answers
 * EINVAL: nobody can have set it then, and it stays 0 in the image.
 */
#define PRCTLS_MAX 16

struct prctl_query {
	int calls[PRCTLS_MAX];
	uint32_t data[PRCTLS_MAX];
};

void prctl_task_query(struct batch *b, struct prctl_query *q);
void prctl_task_collect(struct batch *b, const struct prctl_query *q, Reprise__Task *msg);
/* All but the parent-death signal, which a change of credentials would clear. */
void prctl_task_restart(struct batch *b, const Reprise__Task *msg);

void prctl_process_query(struct batch *b, struct prctl_query *q);
void prctl_process_collect(struct batch *b, const struct prctl_query *q, Reprise__Process *msg);
void prctl_process_restart(struct batch *b, const Reprise__Process *msg);

#endif
