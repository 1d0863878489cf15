/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_TEST_UNIT_EXAMINE_H
#define REPRISE_TEST_UNIT_EXAMINE_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/error.h"

/*
 * Freezes a process, makes each of its threads execute a list of system calls, and lets it
 * go. compare_maps: its mappings must be the same afterwards.
 */
int examine(int proc_fd, pid_t pid, bool compare_maps, struct error *e);

#endif
