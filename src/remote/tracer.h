/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_TRACER_H
#define REPRISE_REMOTE_TRACER_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "core/error.h"

/*
 * Who traces: the thread that asks; or a hand of this process (remote/hand.h), where only that has
 * the rights (to suspend filters of seccomp takes CAP_SYS_ADMIN in the first user namespace).
 * ptrace.c, wait.c and reaper.c ask for all system calls on tracees here.
 */
struct hand;

/*
 * From now on that hand traces, before anything is traced. other_pids: it stayed in another pid
 * namespace, above ours. It is what this process is, for as long as that lives.
 */
int tracer_set(struct hand *h, bool other_pids, struct error *e) must_check;

/* ptrace(2), waitid(2) and waitpid(2) of one tracee; a negative errno. */
long tracer_ptrace(long request, pid_t tid, unsigned long addr, void *data);
int tracer_waitid(pid_t tid, siginfo_t *info, int options);
int tracer_waitpid(pid_t tid, int *status, int options);
/* The same from another thread, while the tracer waits for a task. */
int tracer_waitid_beside(pid_t tid, siginfo_t *info, int options);
int tracer_waitpid_beside(pid_t tid, int *status, int options);

#endif
