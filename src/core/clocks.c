/* SPDX-License-Identifier: Apache-2.0 */
#include "core/clocks.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"

#define SECOND 1000000000ll

/* A line "monotonic  86400  0". Since 5.7 the nanoseconds are never negative. */
static int64_t parse(const char *text, const char *name)
{
	const char *at = strstr(text, name);
	long long sec = 0, nsec = 0;

	if (at && sscanf(at + strlen(name), "%lld %lld", &sec, &nsec) != 2)
		return 0;
	return sec * SECOND + nsec;
}

int clock_offsets_read(int proc_fd, pid_t pid, struct clock_offsets *ret, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	char path[48] = "self/timens_offsets";
	ssize_t n;

	if (pid)
		snprintf(path, sizeof(path), "%d/timens_offsets", pid);
	*ret = (struct clock_offsets){};
	n = procfs_read(proc_fd, &text, e, "%s", path);
	/* Without time namespaces there is no such file: all have the machine's. */
	if (n < 0)
		return procfs_unless_gone(n, e);
	ret->monotonic = parse(text, "monotonic");
	ret->boottime = parse(text, "boottime");
	return 0;
}

/* As timens_ktime_to_host() and timens_add_monotonic() have it. */
int64_t clock_offset(const struct clock_offsets *o, clockid_t clock)
{
	switch (clock) {
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_RAW:
	case CLOCK_MONOTONIC_COARSE:
		return o->monotonic;
	case CLOCK_BOOTTIME:
	case CLOCK_BOOTTIME_ALARM:
		return o->boottime;
	default:
		return 0;
	}
}

uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts = {};

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

uint64_t clock_machine_ns(const struct clock_offsets *own, clockid_t clock)
{
	return clock_ns(clock) - (uint64_t)clock_offset(own, clock);
}
