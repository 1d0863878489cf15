/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long we wait for what the kernel, or a process of ours, does as soon as it gets to run: it is
 * not a judgement. Most of it takes some microseconds, but on a machine with hundreds of programs
 * that want to run even its threads wait for seconds.
 */
#ifndef REPRISE_CORE_PATIENCE_H
#define REPRISE_CORE_PATIENCE_H

#include <time.h>

#define PATIENCE_MS 30000

/* Between two looks. */
static inline void patience_pause(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

#endif
