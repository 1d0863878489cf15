/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_DOUBLE_FS_H
#define REPRISE_FS_DOUBLE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/*
 * A file system in memory, seen by nobody else, that has the number of another one (f_fsid) and
 * inodes with the numbers and generations of inodes there: what is told of these by file handles is
 * as if it had happened to those. Their names in the root are their numbers behind a prefix that
 * no name of the root has for anybody else; number 2 is the root.
 */
struct double_inode {
	uint32_t number, generation;
	bool directory; /* else an empty regular file */
};

#define DOUBLE_INODES_MAX 100
#define DOUBLE_ROOT	  2
#define DOUBLE_PREFIX	  "\1"

/* Can it have an inode of that number? */
bool double_fs_has(uint32_t number);

/* Is there what it takes, loop devices and ext4? */
bool double_fs_possible(void);
/* No number twice. Returns the root, a mount that is attached nowhere, as a descriptor. Takes
 * CAP_SYS_ADMIN in the initial user namespace. */
int double_fs_make(uint64_t fsid, const struct double_inode *inodes, size_t n,
		   struct error *e) must_check;

#endif
