/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_KERNEL_FILES_H
#define REPRISE_CORE_KERNEL_FILES_H

#include "core/kernel_memory.h"

/* The open descriptors of all threads that one thread traces, read at once. */
struct kernel_descriptor {
	uint64_t tid;  /* in the lower half: by the number at `number` of struct pid */
	uint64_t fd;   /* in its table; of threads with the table of their leader only the leader */
	uint64_t file; /* struct file */
	uint64_t
		execs; /* 64 bits of the set of those that exec closes: that of fd is one of them */
	uint64_t locks; /* of processes on its inode, by whomever; 0: there are none */
};

struct kernel_files;
/* tracer: its struct task_struct; number: an offset in struct pid. */
int kernel_files_new(struct kernel_files **ret, struct kernel_memory *k, uint64_t tracer,
		     int number) must_check;
void kernel_files_free(struct kernel_files *f); /* accepts NULL */

/* What could not be read in full is left out. */
typedef void (*kernel_files_fn)(void *arg, const struct kernel_descriptor *d);
int kernel_files_read(struct kernel_files *f, kernel_files_fn fn, void *arg) must_check;

#endif
