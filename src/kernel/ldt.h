/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_LDT_H
#define REPRISE_KERNEL_LDT_H

#include "core/scratch.h"
#include "kernel.pb-c.h"
#include "model/checkpoint.h"

struct user_desc;
/* A descriptor as the processor has it. */
struct user_desc ldt_decode(unsigned int index, uint64_t d);

/*
 * The local descriptor table of an address space (modify_ldt(2)): used by
 * emulators and by old thread libraries; empty for nearly everybody.
 */
#define LDT_ENTRIES_MAX 256 /* that are saved; more are refused */

struct ldt_query {
	uint32_t data;
	int call;
};
void ldt_query(struct batch *b, struct ldt_query *q);
int ldt_collect(struct batch *b, const struct ldt_query *q, Reprise__Process *msg,
		struct scratch *s, struct error *e) must_check;
int ldt_validate(const Reprise__Process *msg, struct error *e) must_check;
/* The refusal, for whoever has counted them. */
int ldt_too_large(struct error *e);
void ldt_restart(struct batch *b, const Reprise__Process *msg);

#endif
