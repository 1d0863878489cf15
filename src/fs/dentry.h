/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_DENTRY_H
#define REPRISE_FS_DENTRY_H

#include <limits.h>

#include "fs/context.h"

/* The struct path of an open file: addresses of its struct vfsmount and struct dentry. */
int dentry_of(struct kernel_memory *k, int fd, uint64_t *ret_mount,
	      uint64_t *ret_dentry) must_check;
/* The other way: an O_PATH descriptor, if it still has a path; c->kernel has been opened. */
int dentry_open(struct checkpoint *c, uint64_t mount, uint64_t dentry);

/* For messages: its name, "?" if it cannot be had. */
void dentry_name(struct kernel_memory *k, uint64_t dentry, char name[NAME_MAX + 1]);
/*
 * The same of a file that has been removed: by a handle as ext4 has it, which is known without
 * asking. Takes CAP_DAC_READ_SEARCH.
 */
int dentry_open_removed(struct checkpoint *c, uint64_t mount, uint64_t dentry) must_check;
/* The names up to the root of the file system: *ret is in the room, "/" the root itself. */
int dentry_path(struct kernel_memory *k, uint64_t dentry, char *path, size_t size,
		const char **ret) must_check;

#endif
