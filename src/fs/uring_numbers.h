/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_URING_NUMBERS_H
#define REPRISE_FS_URING_NUMBERS_H

#include "model/checkpoint.h"

/* The rings of io_uring that a thread knows by numbers of its own. */

#define URING_NUMBERS 16 /* IO_RINGFD_REG_MAX */

/* Adds the questions to the batch of a thread, for uring_numbers_collect(). */
int uring_numbers_query(struct batch *b);
int uring_numbers_collect(struct checkpoint *c, pid_t tid, const struct batch *b, int first,
			  struct error *e) must_check;

#endif
