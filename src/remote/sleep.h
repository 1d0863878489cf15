/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_SLEEP_H
#define REPRISE_REMOTE_SLEEP_H

#include "remote/freeze.h"

/* Private to src/remote: what sleep.c and reissue.c share. */

/* A system call that may sleep. */
struct sleeping_call {
	long nr;
	int form; /* of a relative time-out */
	unsigned int arg;
	bool eintr; /* a bare stop makes it return -EINTR */
};

const struct sleeping_call *sleeping_call(long nr);
/* Does this call, with these arguments, have a relative time-out that ends? */
bool sleeping_is_timed(const struct sleeping_call *call, const uint64_t args[6]);
void sleeping_args(const struct user_regs_struct *regs, uint64_t args[6]);
/* How long the thread had slept at least. */
uint64_t sleeping_since(const struct freezer *f, const struct frozen_thread *t);
/* The call for which restart_syscall(2) stands, -1 if it cannot be told. */
long sleeping_restarted(pid_t tid, const char *wchan, uint64_t ip, const uint64_t args[6]);

#endif
