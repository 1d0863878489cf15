/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_TIMER_H
#define REPRISE_KERNEL_TIMER_H

#include "core/scratch.h"
#include "kernel.pb-c.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * Interval timers (setitimer(2)) and POSIX timers (timer_create(2)). What is
 * set is listed by /proc/PID/timers; values and overruns are asked of the
 * process itself.
 */
#define ITIMERS		 3
#define POSIX_TIMERS_MAX 256 /* in one batch; more are refused */

struct timers_query {
	uint32_t itimers;
	int itimer_calls[ITIMERS];
	size_t n;
	Reprise__PosixTimer **timers; /* as listed; values still missing */
	uint32_t values, clocks;
	int value_calls[POSIX_TIMERS_MAX];
	int overrun_calls[POSIX_TIMERS_MAX];
};

/* Parses the text of /proc/PID/timers. Pure. */
int timers_parse(const char *text, size_t *ret_n, Reprise__PosixTimer ***ret, struct scratch *s,
		 struct error *e) must_check;
/* Refuses too many, while they can be counted from outside only. */
int timers_check(struct checkpoint *c, const struct checkpoint_process *p,
		 struct error *e) must_check;
int timers_query(struct checkpoint *c, struct checkpoint_process *p, struct batch *b,
		 struct timers_query *q, struct scratch *s, struct error *e) must_check;
int timers_collect(struct batch *b, struct timers_query *q, Reprise__Process *msg,
		   struct scratch *s, struct error *e) must_check;
int timers_validate(const Reprise__Process *msg, struct error *e) must_check;
/* Creates and arms them; the last thing before a process runs, since they begin to count. */
int timers_restart(struct restart *r, struct restart_process *p, struct error *e) must_check;

#endif
