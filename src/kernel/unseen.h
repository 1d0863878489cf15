/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_UNSEEN_H
#define REPRISE_KERNEL_UNSEEN_H

#include "model/checkpoint.h"

/*
 * What is in the way of a checkpoint and shows to nobody while a task runs, but in the memory of
 * the kernel: rules of Landlock, keyrings, dispatch of system calls, large descriptor tables,
 * seccomp filters that ask somebody. Where that may not be read, these are met once the task
 * stands.
 */
struct unseen;
void unseen_free(struct unseen *u); /* accepts NULL */

/* Only while checking. Problems are added to those of the check. */
int unseen_check(struct checkpoint *c, const struct checkpoint_process *p,
		 struct error *e) must_check;

#endif
