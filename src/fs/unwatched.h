/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_UNWATCHED_H
#define REPRISE_FS_UNWATCHED_H

#include "fs/context.h"

/* By f_mode of struct file: does nothing that is done through it make an event? */
bool unwatched_is(struct kernel_memory *k, uint32_t mode);
/* Puts such a descriptor in the place of *fd; with a warning, it stays as it is where we may not.
 */
void unwatched_take_over(struct restart *r, const Reprise__File *msg, int *fd);

#endif
