/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_STALL_H
#define REPRISE_OPERATION_STALL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * A worker that looks at tasks asks their file systems, of which one may not answer (FUSE, NFS): it
 * sleeps in a system call then, and some of these sleeps can be ended by nobody. The caller sees
 * that from outside, ends the worker, and says so. One that is short of processor time, or waits
 * again and again, is never taken for such a one.
 */

/* Shared by the worker, who writes to it, and the caller. */
struct stall_page {
	_Atomic uint64_t since; /* CLOCK_MONOTONIC, ns; 0: it may sleep as long as it likes */
	_Atomic int limit_ms;
	_Atomic pid_t worker; /* its process, by the number that the caller knows */
	_Atomic pid_t task;   /* at which it looks, as the user knows it; 0: none */
};

/* What the caller has seen. */
struct stall {
	uint64_t since, switches;
};

struct stall_page *stall_page_new(void); /* NULL: no memory */
void stall_page_free(struct stall_page *page);
/* Has no thread of the worker run at all for as long as it may sleep? */
bool stall_seen(const struct stall_page *page, struct stall *s);

#endif
