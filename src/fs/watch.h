/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_WATCH_H
#define REPRISE_FS_WATCH_H

#include "fs/context.h"

/* What inotify and fanotify have in common: inodes that are watched, as fdinfo shows them. */

#ifndef FILEID_KERNFS
#define FILEID_KERNFS 0xfe /* linux/exportfs.h: of sysfs and of control groups */
#endif

struct watch_inode {
	uint64_t ino;
	dev_t dev;
	struct file_handle *handle; /* NULL: a file system without handles */
	char room[160] __attribute__((aligned(8)));
};

/* include/linux/kdev_t.h: 20 bits of minor number. */
dev_t watch_dev(unsigned int kernel);
/* The handle at the end of a line; 0 or -EINVAL. */
int watch_parse_handle(const char *line, struct watch_inode *w);
/* Finds the watched inode and saves it; its id. `what` is the watch in words. */
int watch_save(struct checkpoint *c, const struct file_entry *f, struct watch_inode *w,
	       const char *what, uint64_t *ret_inode, struct error *e) must_check;
/*
 * Is it a file of a control group, or of sysfs, that was removed? Whoever watches such may not have
 * heard of it yet, or never does: nothing tells him (kernfs_remove()). Needs CAP_DAC_READ_SEARCH.
 */
bool watch_is_gone(struct checkpoint *c, const struct watch_inode *w);
/* By its handle on its device alone, if it has a path there: an O_PATH descriptor, or -1. */
int watch_open_handle(struct checkpoint *c, const struct watch_inode *w);
/* Descriptors on all mounts of a device, in c->files->mounts, opened once; the last is -1. */
int watch_find_mounts(struct checkpoint *c, dev_t dev) must_check;
/* What is watched on an overlay of a container: an O_PATH descriptor, or -1. Needs
 * CAP_DAC_READ_SEARCH. */
int watch_overlay_open(struct checkpoint *c, const struct watch_inode *w);
/* A path below our /proc (proc_fd) that leads to the inode, whatever has become of its name; valid
 * while fd is. */
int watch_open(struct restart *r, uint64_t inode, int *ret_fd, char *path, size_t size,
	       struct error *e) must_check;
/* A file system in memory that nobody else sees: its root. Takes CAP_SYS_ADMIN over our mounts. */
int watch_make_fs(void);
/*
 * How many events a new queue of "inotify" or "fanotify" takes, which is to be filled: refused if
 * that were to take the memory of the machine.
 */
int watch_queue_limit(const struct restart *r, const char *what, uint64_t *ret,
		      struct error *e) must_check;
/* For messages. */
const char *watch_name(const struct restart *r, uint64_t inode);

#endif
