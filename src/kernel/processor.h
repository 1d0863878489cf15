/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_PROCESSOR_H
#define REPRISE_KERNEL_PROCESSOR_H

#include "kernel.pb-c.h"
#include "model/checkpoint.h"

/*
 * What a task has asked of the processor by arch_prctl(2): that CPUID faults (of a thread),
 * extended state that takes permission (of a process). Tagged addresses and ports are refused.
 */
struct processor_query {
	int cpuid, permitted, untag;
	uint32_t permitted_at, untag_at;
};

/* The refusals (E_TASK_STATE), for whoever has found the reason. */
int processor_ports(struct error *e);
int processor_tags(struct error *e);

void processor_task_query(struct batch *b, struct processor_query *q);
int processor_task_collect(const struct batch *b, const struct processor_query *q, pid_t tid,
			   Reprise__Task *msg, struct error *e) must_check;
void processor_task_restart(struct batch *b, const Reprise__Task *msg);

void processor_process_query(struct batch *b, struct processor_query *q);
int processor_process_collect(struct batch *b, const struct processor_query *q,
			      Reprise__Process *msg, struct error *e) must_check;
void processor_process_restart(struct batch *b, const Reprise__Process *msg);

#endif
