/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_LIKENESS_H
#define REPRISE_KERNEL_LIKENESS_H

#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"

/*
 * A process of ours into which a task may look (__ptrace_may_access()): it has its ids, is in its
 * user namespace, and has no capabilities; and nothing of ours, since others may look, too. It
 * stands still.
 */
struct likeness {
	uint32_t uid, gid;
	int space; /* the pid namespace in which it is born, or a process there; -1: ours */
	int user;  /* the user namespace, -1: ours */
};

/* Its pid as we see it, or a negative errno. It ends with the thread of ours that called this. */
pid_t likeness_begin(const struct likeness *like) must_check;
void likeness_end(pid_t pid);

#endif
