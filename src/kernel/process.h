/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_PROCESS_H
#define REPRISE_KERNEL_PROCESS_H

#include "core/objects.h"
#include "kernel/namespaces.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * A thread group: its place in the tree, what its threads share, its limits and
 * timers. Zombies are processes without threads.
 */

/* Identities of tables that only the kernel can compare; one for a checkpoint. */
struct process_index {
	struct kcmp_index *mm, *sighand;
	struct namespaces namespaces;
	char *label; /* our own, of a security module; NULL: there is none */
};
int process_index_new(struct checkpoint *c, struct process_index *x, struct error *e) must_check;
void process_index_free(struct process_index *x);

/* Object id of the address space (in p->mm). */
int process_identify_mm(struct checkpoint *c, struct process_index *x, struct checkpoint_process *p,
			struct error *e) must_check;
/*
 * The part of process_check() that only compares what /proc tells, with its findings left in *p: it
 * may be called before, by any thread, and is called if it was not.
 */
void process_look(const struct checkpoint *c, const struct process_index *x,
		  struct checkpoint_process *p);
/* Of that what says what the process is like while nothing runs in it. */
void process_look_at_texts(const struct checkpoint *c, struct checkpoint_process *p);
/* What cannot be saved, looked for without touching the process: namespaces, 32-bit code, seccomp,
 * tracers. */
int process_check(struct checkpoint *c, const struct process_index *x, struct checkpoint_process *p,
		  struct error *e) must_check;
/* The record of the process and those of its threads; the tree is frozen. */
int process_checkpoint(struct checkpoint *c, struct process_index *x, struct checkpoint_process *p,
		       struct error *e) must_check;

int process_validate(const struct restart *r, const Reprise__Process *m,
		     struct error *e) must_check;
/* What all threads share: signal actions and queue, prctl; in the leader, before its threads' own
 * state. */
int process_restart_shared(struct restart *r, struct restart_process *p, bool sighand,
			   struct error *e) must_check;
/* Limits, out-of-memory score, timers: after everything that they could hinder. */
int process_restart_last(struct restart *r, struct restart_process *p, struct error *e) must_check;

#endif
