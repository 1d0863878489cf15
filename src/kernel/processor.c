/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/processor.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

/* asm/prctl.h of 6.4 and newer */
#define GET_CPUID      0x1011
#define SET_CPUID      0x1012
#define GET_XCOMP_PERM 0x1022
#define REQ_XCOMP_PERM 0x1023
#define GET_UNTAG_MASK 0x4001

#define FEATURE_TILE_DATA 18 /* of AMX: the one that takes permission */

int processor_ports(struct error *e)
{
	return error_set(e, -EOPNOTSUPP, E_TASK_STATE,
			 "may use ports for input and output (ioperm(2) or iopl(2))");
}

int processor_tags(struct error *e)
{
	return error_set(e, -EOPNOTSUPP, E_TASK_STATE,
			 "uses addresses with tags (ARCH_ENABLE_TAGGED_ADDR)");
}

void processor_task_query(struct batch *b, struct processor_query *q)
{
	q->cpuid = batch_call(b, SYS_arch_prctl, VAL(GET_CPUID), VAL(0));
}

int processor_task_collect(const struct batch *b, const struct processor_query *q, pid_t tid,
			   Reprise__Task *msg, struct error *e)
{
	/* 1: it does not fault */
	msg->cpuid_mode = batch_result(b, q->cpuid) == 0;
	return trace_has_ports(tid) ? processor_ports(e) : 0;
}

void processor_task_restart(struct batch *b, const Reprise__Task *msg)
{
	if (msg->cpuid_mode)
		batch_must(b, batch_call(b, SYS_arch_prctl, VAL(SET_CPUID), VAL(0)));
}

void processor_process_query(struct batch *b, struct processor_query *q)
{
	q->permitted_at = batch_data(b, NULL, sizeof(uint64_t));
	q->untag_at = batch_data(b, NULL, sizeof(uint64_t));
	q->permitted = batch_call(b, SYS_arch_prctl, VAL(GET_XCOMP_PERM), DATA(q->permitted_at));
	q->untag = batch_call(b, SYS_arch_prctl, VAL(GET_UNTAG_MASK), DATA(q->untag_at));
}

int processor_process_collect(struct batch *b, const struct processor_query *q,
			      Reprise__Process *msg, struct error *e)
{
	uint64_t mask;

	if (batch_result(b, q->permitted) == 0) {
		memcpy(&mask, batch_at(b, q->permitted_at), sizeof(mask));
		msg->xstate_permitted = mask;
	}
	if (batch_result(b, q->untag) != 0) /* a kernel without tags */
		return 0;
	memcpy(&mask, batch_at(b, q->untag_at), sizeof(mask));
	return ~mask ? processor_tags(e) : 0;
}

/* A task that executes such an instruction without permission gets SIGILL. */
void processor_process_restart(struct batch *b, const Reprise__Process *msg)
{
	if (msg->xstate_permitted & 1ull << FEATURE_TILE_DATA)
		batch_must(b, batch_call(b, SYS_arch_prctl, VAL(REQ_XCOMP_PERM),
					 VAL(FEATURE_TILE_DATA)));
}
