/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_FIRST_H
#define REPRISE_NS_FIRST_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/error.h"

/*
 * The first process of a pid namespace that has none of its own: a small program (src/init), whose
 * name and arguments say for which child of its it cares.
 */

/* Its file: in memory, since a container may have no file of ours. A descriptor, closed by exec. */
int first_open(struct error *e) must_check;
/* Becomes it. until_all: it ends when nobody is left; else when the child does. Returns -errno. */
int first_become(int fd, pid_t child, bool until_all);
/* Becomes a process that stands still (SIGSTOP), and has nothing of ours. Returns -errno. */
int first_stand(int fd);
/* Is it one? Then it takes in, and waits for, all that its namespace leaves to it. */
bool first_is(int proc_fd, pid_t pid);
/*
 * Is `pid` such a child? Then *ret is its parent, which has to be saved with it; else the first
 * process of its namespace, or 0. Pids are those of proc_fd.
 */
bool first_cares_for(int proc_fd, pid_t pid, pid_t inner, pid_t *ret);

#endif
