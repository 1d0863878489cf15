/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_MEMBARRIER_H
#define REPRISE_KERNEL_MEMBARRIER_H

#include "model/checkpoint.h"
#include "remote/batch.h"

/* What a process has registered for by membarrier(2): commands, as bits. */
#define MEMBARRIER_KINDS 3

struct membarrier_query {
	int told; /* -1: this kernel does not tell */
	int kinds[MEMBARRIER_KINDS];
};

void membarrier_query(struct checkpoint *c, struct batch *b, struct membarrier_query *q);
uint64_t membarrier_collect(struct checkpoint *c, pid_t tid, const struct batch *b,
			    const struct membarrier_query *q);
void membarrier_restart(struct batch *b, uint64_t registrations);

#endif
