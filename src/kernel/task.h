/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_TASK_H
#define REPRISE_KERNEL_TASK_H

#include "kernel/process.h"
#include "kernel/prctl.h"
#include "kernel/processor.h"
#include "kernel/security.h"
#include "kernel/signal.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * One thread: signals of its own, credentials, scheduling and what else the kernel keeps in struct
 * task_struct; registers are a subject of their own (registers.h).
 */

/* What cannot be saved, looked for without touching the thread. */
int task_check(struct checkpoint *c, struct checkpoint_process *p, pid_t tid,
	       struct error *e) must_check;

/* Questions that only the thread can answer; the process's own are asked with its first thread. */
struct task_query {
	struct altstack_query altstack;
	struct prctl_query prctl;
	struct processor_query processor;
	int securebits;
	int timerslack;
	int personality;
	uint32_t mempolicy;
	int mempolicy_call;
	int rings;
	struct security_query security;
};
void task_query(struct batch *b, struct task_query *q);
/* Completes and puts the record, from the answers and from outside. */
int task_checkpoint(struct checkpoint *c, struct checkpoint_process *p, struct frozen_thread *t,
		    struct batch *b, const struct task_query *q, struct error *e) must_check;
/* A leader that has exited while its threads go on: nothing is left of it but its name and id. */
int task_checkpoint_exited(struct checkpoint *c, struct checkpoint_process *p, pid_t tid,
			   struct error *e) must_check;

int task_validate(const struct restart *r, const Reprise__Task *m, struct error *e) must_check;
/*
 * All but registers: what must be set while the stub is privileged, then
 * seccomp, credentials and what depends on them. `now`: the credentials, scheduling and filters
 * that the stub has.
 */
int task_restart(struct restart *r, struct restart_task *t, const Reprise__Task *now,
		 struct error *e) must_check;
/* Credentials and scheduling of a thread; status: the text of its file in /proc. */
int task_outside(pid_t tid, const char *status, Reprise__Task *msg, struct scratch *s,
		 struct error *e) must_check;

#endif
