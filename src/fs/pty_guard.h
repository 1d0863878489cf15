/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_PTY_GUARD_H
#define REPRISE_FS_PTY_GUARD_H

#include <stddef.h>

#include "fs/pty_queue.h"

/* One pseudo-terminal to be looked into. */
struct pty_job {
	struct pty_sides sides;
	int result; /* 0 or a negative errno */
	struct pty_queue queue;
};

/* Shared with the guard; all zero. NULL: no memory. */
struct pty_job *pty_jobs_new(size_t n);
void pty_jobs_free(struct pty_job *jobs, size_t n); /* accepts NULL */

/*
 * Copies what is in n pseudo-terminals that nobody uses meanwhile. Each result tells of its
 * own; a negative errno is returned if no guard could be made.
 */
int pty_guard_run(struct pty_job *jobs, size_t n);

#endif
