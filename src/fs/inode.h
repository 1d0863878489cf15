/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_INODE_H
#define REPRISE_FS_INODE_H

#include "core/vec.h"
#include "image/image.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * What a path led to, shared by open files, mappings, executables and working
 * directories: saved once by <device, inode>. Files without a name (deleted,
 * memfd, shared anonymous and System V memory) carry their contents with them
 * as a page group <inode id, stage 0>; all inode groups stand before those of the address spaces.
 */
enum inode_kind { /* numbers stand in images: for ever */
		  INODE_NAMED = 1,
		  INODE_DELETED = 2,
		  INODE_MEMFD = 3,
		  INODE_SHARED_ANON = 4, /* "/dev/zero (deleted)" */
		  INODE_SYSV_SHM = 5,	 /* "/SYSV%08x (deleted)" */
		  INODE_HUGETLB = 6, /* "/anon_hugepage (deleted)" and memfds with MFD_HUGETLB */
		  INODE_ENDED = 7,   /* a directory of /proc, of a task that has ended */
};

/*
 * fd: any descriptor of ours of that inode (O_PATH will do for named ones); it is duplicated if it
 * must be kept. `link` is how the kernel names it (readlink, or the name in /proc/PID/maps). Saves
 * the record at first sight.
 */
int inode_checkpoint(struct checkpoint *c, const struct checkpoint_process *p, int fd,
		     const char *link, uint64_t *ret_id, struct error *e) must_check;
/* The same for a copy that stands for memory which may not be opened: that has the number `ino`, on
 * the device `dev` if that is not 0. */
int inode_checkpoint_copy(struct checkpoint *c, const struct checkpoint_process *p, int fd,
			  const char *link, dev_t dev, uint64_t ino, uint64_t *ret_id,
			  struct error *e) must_check;
/* Refuses a directory that is on no mount of the task, though a path may seem to lead to it, unless
 * it is on one that is attached nowhere. */
int inode_refuse_foreign(struct checkpoint *c, pid_t tid, int fd, const char *link,
			 struct error *e) must_check;
/* Sum of the contents to come, and the page groups themselves, in the order of ids. */
uint64_t inodes_page_bytes(struct checkpoint *c);

struct page_runs {
	struct page_run *v;
	size_t n, cap;
};

/*
 * Memory that is a file without a name, and larger than `least`: a descriptor for reading it. Found
 * by the survey of a checkpoint that copies in advance.
 */
struct memory_object {
	int fd;
	uint64_t dev, ino;
	uint64_t bytes;	 /* of its pages */
	bool is_segment; /* of System V: a number may be that of another file, too */
	uint64_t parent; /* the same in the parent of the image; 0: none is known */
};
struct memory_objects {
	VEC(struct memory_object) v;
};
void memory_objects_free(struct memory_objects *objects);
int inodes_take_memory(struct checkpoint *c, uint64_t least, struct memory_objects *ret) must_check;
bool inode_is_object(const Reprise__Inode *inode, const struct memory_object *o);
/* How much of the contents there is no copy of. */
uint64_t inodes_uncopied_bytes(struct checkpoint *c);
void inodes_forget_copies(struct checkpoint *c);
/* Puts the contents into c->store, so that the tasks can go on. */
int inodes_keep_pages(struct checkpoint *c, struct error *e) must_check;
/* The i-th file, with or without contents in the image; NULL past the last. */
const Reprise__Inode *inodes_at(const struct checkpoint *c, size_t i, uint64_t *ret_id);
int inodes_save_pages(struct checkpoint *c, struct error *e) must_check;

int inode_validate(const struct restart *r, uint64_t id, struct error *e) must_check;
/* Makes the nameless ones and reads their contents; checks that the named ones are there and
 * unchanged. */
int inodes_restart(struct restart *r, struct error *e) must_check;
/* A new open file description of it. flags as for open(2). For INODE_NAMED the file that is opened
 * is verified to be the one that was checked. */
int inode_open(struct restart *r, uint64_t id, int flags, int *ret_fd, struct error *e) must_check;

/*
 * The id by which a System V segment is attached (shmat) in a task, so that it counts as attached:
 * mappings of INODE_SYSV_SHM are made that way. -EINVAL for other kinds.
 */
int inode_sysv_shmid(const struct restart *r, uint64_t id);
/*
 * When all mappings exist and nothing can fail any more but the resuming: seals that would have
 * hindered the mappings, and removed System V segments are removed again. What this call leaves
 * behind stays even if files_restart_end() follows.
 */
int inodes_restart_seal(struct restart *r, struct error *e) must_check;

/* For a working or root directory of the task, O_PATH. One of a task that has ended is there, and
 * can be entered, until the next call or inodes_ended_finish(). */
int inode_open_directory(struct restart *r, uint64_t id, const struct restart_task *t, int *ret_fd,
			 struct error *e) must_check;
/* All have their directories: stand-ins for tasks that had ended are not needed any more. */
void inodes_ended_finish(struct restart *r);

#endif
