/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_INODE_PRIVATE_H
#define REPRISE_FS_INODE_PRIVATE_H

#include "fs/context.h"

/* Between the files of one subject: inode.c and inode_*.c. */

/* The file system of an inode, asked once for each device; NULL if it cannot be told. */
const struct device_seen *inode_device(struct checkpoint *c, int fd, const struct stat *st);

/* To read what it holds. */
int inode_open_to_read(struct checkpoint *c, int fd, const char *path, int *ret,
		       struct error *e) must_check;

/* Is the inode one of those that stand for memory: on the kernel's own tmpfs, or on hugetlbfs
 * without a name? Sets entry->msg.kind. */
bool inode_memory_recognise(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			    struct inode_entry *entry);
/* What is special about its kind: name, seals, key. */
int inode_memory_checkpoint(struct checkpoint *c, int fd, const char *link,
			    struct inode_entry *entry, struct error *e) must_check;
int inode_memory_restart(struct restart *r, struct inode_open *inode, struct error *e) must_check;

int inode_sysv_checkpoint(struct checkpoint *c, struct inode_entry *entry,
			  struct error *e) must_check;
int inode_sysv_restart(struct restart *r, struct inode_open *inode, struct error *e) must_check;
/* The tasks are attached: what was removed is removed again, what was not stays. */
int inode_sysv_finish(struct restart *r, struct inode_open *inode, struct error *e) must_check;
void inode_sysv_release(struct inode_open *inode);

/* Where the path of one begins, and from there on: *path, for rooted_path(). */
int inode_root(const struct restart *r, const Reprise__Inode *msg, const char **path);
struct inode_open *inode_find(const struct restart *r, uint64_t id);
/* The file behind a mapping of ours, by /proc/self/map_files. `path` is scratch. */
int inode_open_mapping(int proc_fd, const void *map, uint64_t size, char *path, size_t path_size);

/* A directory of /proc about a task that has ended. */
bool inode_is_of_ended_task(int fd, const struct stat *st, const char *link);
int inode_ended_recognise(struct checkpoint *c, const struct stat *st, const char *link,
			  struct inode_entry *entry, struct error *e) must_check;
int inode_ended_validate(const Reprise__Inode *msg, struct error *e) must_check;

/*
 * Named or deleted? Sets kind and path. Runs before the identity is known,
 * since two names of one file are two inodes here.
 */
int inode_path_recognise(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			 struct inode_entry *entry, struct error *e) must_check;
int inode_named_check(struct restart *r, struct inode_open *inode, struct error *e) must_check;
int inode_named_open(struct restart *r, const struct inode_open *inode, int flags, int *ret_fd,
		     struct error *e) must_check;
int inode_deleted_restart(struct restart *r, struct inode_open *inode, struct error *e) must_check;
/* When all are made: directories that had been removed are removed again. */
int inode_deleted_finish(struct restart *r, struct error *e) must_check;
void inode_deleted_end(struct checkpoint *c);
void inode_deleted_release(struct restart *r);
/* A file that was removed, at the checkpoint: a name that it has still, one that is made for it, or
 * its contents. Sets kind and path. */
int inode_deleted_recognise(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			    const char *path, struct inode_entry *entry,
			    struct error *e) must_check;

/* Which parts of the file hold data: entry->runs, msg.contents. Keeps a descriptor for reading
 * them. */
int inode_contents_collect(struct checkpoint *c, int fd, const struct stat *st,
			   struct inode_entry *entry, struct error *e) must_check;
/* A source of pages: the file of an inode_entry. */
int inode_read(void *arg, uint64_t address, void *buf, size_t len, struct error *e) must_check;
/* In the survey: is this memory worth being copied in advance? Then a descriptor is kept for it. */
void inode_look_at_memory(struct checkpoint *c, int fd, const struct stat *st,
			  struct inode_entry *entry);
int inode_xattr_checkpoint(struct checkpoint *c, int fd, const struct stat *st,
			   struct inode_entry *entry, struct error *e) must_check;
/* Those that begin with "user.", or the others. */
int inode_xattr_restart(struct restart *r, const struct inode_open *inode, bool user,
			struct error *e) must_check;
/* Flags of chattr(1), of files without a name. They are set last: who may write to such a file
 * could not open it. */
void inode_flags_save(const struct checkpoint *c, int fd, Reprise__Inode *msg);
int inode_flags_validate(const Reprise__Inode *msg, struct error *e) must_check;
int inode_flags_restart(const struct restart *restart, const struct inode_open *inode,
			struct error *e) must_check;
/* Contents only: into inode->map if there is one, else into inode->fd. */
int inode_contents_fill(struct restart *r, struct inode_open *inode, struct error *e) must_check;
/* Size, contents, owner, mode, times of a new nameless file. */
int inode_contents_restart(struct restart *r, struct inode_open *inode, struct error *e) must_check;

#endif
