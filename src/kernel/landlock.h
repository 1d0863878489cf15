/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_LANDLOCK_H
#define REPRISE_KERNEL_LANDLOCK_H

#include <stdbool.h>

#include "core/kernel_memory.h"

/* Can a task be under rules of Landlock, with this kernel? If not, errno is set. */
bool landlock_available(void);
/*
 * Where, in what cred.security of a task points to, the rules of Landlock stand that it is under;
 * and those that we are under (0: none). Negative if that cannot be found out, or there is no
 * Landlock.
 */
int landlock_place(struct kernel_memory *k, int *ret, uint64_t *ret_own) must_check;

#endif
