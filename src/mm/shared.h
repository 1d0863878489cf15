/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_SHARED_H
#define REPRISE_MM_SHARED_H

#include "fs/inode.h"
#include "mm/track.h"

/*
 * Copies in advance of memory that is shared: what stands for itself, as a file without a name
 * (memfds, shared anonymous memory, System V segments, removed files of a tmpfs, hugetlbfs).
 *
 * Such an object can be written to through each of its mappings, and by system calls. A copy of a
 * page counts in the freeze if nobody can have written to it since it was made:
 * - All mappings of the object that can be written to, in whatever process, are registered with the
 *   userfaultfd of a track: as many as the kernel says there are (i_mmap_writable). Each says by
 * its marks what was written through it (see track.h).
 * - No other mapping has been made, if only for a moment, and write(), fallocate() and the like
 *   have not been called for it (core/kernel_watch.h).
 * - The mappings are still there, and registered.
 * - What is not mapped has the same ctime. The clock for that may stand still for a tick, so that a
 *   time that is as new as that is not relied upon.
 * - No system call of the tree is under way that had begun before: all are stopped for a moment
 *   between protecting and copying.
 * Where one of these is not so, or cannot be known (it takes root), the object is copied in the
 * freeze. What is left, as with private memory, are writes from outside the tree that had begun
 * before and come past all page tables.
 */
struct shared_objects;

/* Less than that is copied in the freeze. */
#define SHARED_WORTH (1ull << 20)

/*
 * objects: as seen by the survey; their descriptors are owned from now on. Starts to watch who maps
 * them. A failure is none of the checkpoint.
 */
int shared_begin(struct checkpoint *c, struct memory_objects *objects, struct shared_objects **ret,
		 struct error *e) must_check;
void shared_end(struct shared_objects *s); /* accepts NULL */
/* Does a task map one of them? */
bool shared_maps(const struct shared_objects *s, int proc_fd, pid_t tid);
/* All tasks stand still: registers mappings, and looks whether what has been copied counts. */
int shared_register(struct checkpoint *c, struct mm_tracks *tracks, struct error *e) must_check;
/* As track_look(), track_again(), track_copy() and track_leave(). */
int shared_look(struct checkpoint *c, struct mm_tracks *tracks, uint64_t *ret_bytes,
		struct error *e) must_check;
int shared_again(struct checkpoint *c, struct mm_tracks *tracks, uint64_t *ret_bytes,
		 struct error *e) must_check;
int shared_copy(struct checkpoint *c, struct mm_tracks *tracks, struct error *e) must_check;
int shared_leave(struct mm_tracks *tracks, struct error *e) must_check;
/* In the freeze: which copies hold? */
int shared_settle(struct checkpoint *c, struct error *e) must_check;
/* 1: where the contents of that inode are, and the copies of them; 0: that is not known. -ENOMEM.
 */
int shared_contents(struct checkpoint *c, const Reprise__Inode *inode, struct page_runs *ret_data,
		    struct page_runs *ret_copies) must_check;

#endif
