/* SPDX-License-Identifier: Apache-2.0 */
/* Forks from a program with threads that runs with the thread sanitizer. */
#ifndef QUIET_FORK_H
#define QUIET_FORK_H

/*
 * Each thread of the program calls this first, the first thread of the process before all others;
 * none may fork before all have.
 */
void quiet_fork_sit(void);

#endif
