/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_TARGET_H
#define REPRISE_OPERATION_TARGET_H

#include <sys/types.h>

#include "core/error.h"

/* Is this pid something that can be saved at all? Not touched. */
int target_check(pid_t pid, struct error *e) must_check;

/*
 * The instruction set features of this machine that programs choose code by, as
 * /proc/cpuinfo names them, separated by spaces; to be freed.
 */
int target_cpu_flags(int proc_fd, char **ret, struct error *e) must_check;
/* The first feature of `saved` that this machine lacks, or NULL; to be freed. */
char *target_missing_cpu_flag(const char *saved, const char *here);

#endif
