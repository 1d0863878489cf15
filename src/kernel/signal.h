/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_SIGNAL_H
#define REPRISE_KERNEL_SIGNAL_H

#include "core/scratch.h"
#include "kernel.pb-c.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * Signals: the table of actions (struct sighand), pending queues, alternate
 * stacks. Only the task itself can tell its actions and its alternate stack, so
 * they are asked for in the batch that every process and thread executes once.
 */
#define NSIG_ALL 64

struct sighand_query {
	uint32_t data;
};
void sighand_query(struct batch *b, struct sighand_query *q);
int sighand_collect(struct batch *b, const struct sighand_query *q, Reprise__Sighand *msg,
		    struct scratch *s) must_check;
/*
 * Adds the calls that set all actions. First each signal is ignored, which
 * empties the queues of what the making of the tree left there (SIGCHLD).
 */
int sighand_restart(struct batch *b, const Reprise__Sighand *msg, bool compat) must_check;
int sighand_validate(const Reprise__Sighand *msg, struct error *e) must_check;

/* Pending signals, in order: the shared queue of the process or the thread's own. */
int pending_checkpoint(pid_t tid, bool shared, size_t *ret_n, Reprise__Siginfo ***ret,
		       struct scratch *s, struct error *e) must_check;
/* Queued again by the task itself: nobody else may send such siginfo (rt_sigqueueinfo(2)). */
int pending_restart(struct restart *r, struct restart_task *t, bool shared, size_t n,
		    Reprise__Siginfo **list, struct error *e) must_check;

struct altstack_query {
	uint32_t data;
	int call;
};
void altstack_query(struct batch *b, struct altstack_query *q);
int altstack_collect(struct batch *b, const struct altstack_query *q, Reprise__Task *msg,
		     struct error *e) must_check;
void altstack_restart(struct batch *b, const Reprise__Task *msg);

#endif
