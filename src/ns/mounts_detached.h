/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNTS_DETACHED_H
#define REPRISE_NS_MOUNTS_DETACHED_H

#include <sys/stat.h>
#include <sys/vfs.h>

#include "model/checkpoint.h"
#include "model/restart.h"
#include "ns/spaces.h"

/*
 * Mounts that are attached nowhere, but files of which are open: unmounted lazily, or made by
 * fsmount() and open_tree() and never attached. Each is an object. What shows files that are seen
 * elsewhere is bound from there; a file system in memory that is seen nowhere else goes into the
 * image. Only the kernel's memory tells what such a mount shows.
 */

/* ret->id is 0 where the mount is attached somewhere. link: of the file. */
int mounts_look_detached(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			 struct space_detached *ret, struct error *e) must_check;
/* As far as the kernel's memory tells. */
bool mount_is_nowhere(struct checkpoint *c, int fd);
/* Is this the descriptor as which it was made? It can be attached as long as that is open. */
bool mount_is_held_by(struct checkpoint *c, int fd);

/* Options of a file system in memory, as mount(2) takes them, from its struct super_block. initial:
 * we are in the initial user namespace. -EOPNOTSUPP where it has some that are not told. */
int mounts_tmpfs_options(struct kernel_memory *k, uint64_t super, bool initial,
			 const struct statfs *fs, char *buf, size_t size) must_check;
int mounts_ramfs_options(struct kernel_memory *k, uint64_t super, char *buf,
			 size_t size) must_check;

int mounts_validate_detached(const struct restart *r, struct error *e) must_check;
/* Made, with their files, when all namespaces are there. */
int mounts_restart_detached(struct restart *r, struct error *e) must_check;
/* What had been removed has been made on them: they are read-only, if they were. */
int mounts_settle_detached(struct restart *r, struct error *e) must_check;

#endif
