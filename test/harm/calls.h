/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HARM_CALLS_H
#define HARM_CALLS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/types.h>

/* What is known of each system call, for inject.c. */
struct failure {
	long nr;
	const char *name;
	int errs[6];
};
/* NULL: it cannot fail in a way that means anything. */
const struct failure *failure(long nr);
/* One that does not wait is not interrupted. */
bool may_fail(const struct __ptrace_syscall_info *info);
bool moves_bytes(long nr);
/* Is it all the same to everybody else whether the task ends before this call or behind it? */
bool is_unseen(pid_t tid, const struct __ptrace_syscall_info *info);

#endif
