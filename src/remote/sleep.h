/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_SLEEP_H
#define REPRISE_REMOTE_SLEEP_H

#include "remote/freeze.h"

/* Private to src/remote: what sleep.c and reissue.c share. */

/* Numbers of i386. */
#define I386_NANOSLEEP		    ARCH_COMPAT_CALL(162)
#define I386_CLOCK_NANOSLEEP	    ARCH_COMPAT_CALL(267)
#define I386_CLOCK_NANOSLEEP_TIME64 ARCH_COMPAT_CALL(407)
#define I386_FUTEX		    ARCH_COMPAT_CALL(240)
#define I386_FUTEX_TIME64	    ARCH_COMPAT_CALL(422)
#define I386_POLL		    ARCH_COMPAT_CALL(168)
#define I386_IPC		    ARCH_COMPAT_CALL(117)
#define IPC_CALL_SEMTIMEDOP	    4 /* include/uapi/linux/ipc.h */

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
long sleeping_restarted(pid_t tid, const char *wchan, const struct task_call *call);
/* What the call does for a 64-bit task, -1 for one that is not told apart. */
long sleeping_plain(long nr);
bool sleeping_is_poll(long nr);

#endif
