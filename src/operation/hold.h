/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_HOLD_H
#define REPRISE_OPERATION_HOLD_H

#include <sys/types.h>

#include "core/error.h"

/*
 * One checkpoint at a time: whoever saves a tree holds a lock on the memory file of its root, until
 * the application goes on, or ends.
 */
/* *ret: to be closed; negative if the file may not be opened, which others will say better. */
int hold_target(pid_t pid, int *ret, struct error *e) must_check;
/* Only looks whether somebody holds it. */
int hold_check(pid_t pid, struct error *e) must_check;

#endif
