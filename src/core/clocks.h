/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_CLOCKS_H
#define REPRISE_CORE_CLOCKS_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "core/error.h"

/*
 * There are as many monotonic clocks as time namespaces. A point in time that a task knows is of
 * the clock of its namespace, one in the kernel's memory of the machine's, and what clock_gettime()
 * tells us of that of our own namespace. Who compares two of them goes through this file. What is
 * left of a timer is the same everywhere.
 */

/* By how much the clocks of a namespace are ahead of those of the machine, in ns. */
struct clock_offsets {
	int64_t monotonic, boottime;
};

/*
 * Those of the namespace in which the next child of a process will be; pid 0: of our own. Without
 * time namespaces all are the machine's.
 */
int clock_offsets_read(int proc_fd, pid_t pid, struct clock_offsets *ret,
		       struct error *e) must_check;
/* 0 for clocks that are the same in all of them, such as the time of day. */
int64_t clock_offset(const struct clock_offsets *o, clockid_t clock);
/* What it shows to this process. */
uint64_t clock_ns(clockid_t clock);
/* What it shows where no namespace changes it; own: our offsets. */
uint64_t clock_machine_ns(const struct clock_offsets *own, clockid_t clock);

#endif
