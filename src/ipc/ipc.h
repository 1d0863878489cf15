/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IPC_IPC_H
#define REPRISE_IPC_IPC_H

#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * System V IPC: semaphore sets with their SEM_UNDO lists, message queues. (Segments of
 * shared memory are inodes, see fs/inode_sysv.c. POSIX message queues are files.)
 */

int ipc_checkpoint_begin(struct checkpoint *c, struct error *e) must_check;
void ipc_checkpoint_end(struct checkpoint *c); /* accepts that begin never ran */
/* The SEM_UNDO list of a thread: equal ids share one. Runs while checking, too. */
int ipc_undo_identify(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		      uint64_t *ret_id, struct error *e) must_check;

/*
 * Calls fn in an IPC namespace of the tree; 0: that of the root, in which we are.
 */
int ipc_visit(struct checkpoint *c, uint64_t space,
	      int (*fn)(struct checkpoint *c, void *arg, struct error *e), void *arg,
	      struct error *e) must_check;

/*
 * Segments are told apart by their number, which stands where files have their inode number, but
 * each IPC namespace counts for itself. Where the tree has several, that of the namespace stands in
 * front: this is what the number of an inode is for all that is ours.
 *
 * Of a segment that a task has mapped at start; *ret is that which the kernel shows.
 */
int ipc_number_mapped(struct checkpoint *c, const struct checkpoint_process *p, uint64_t start,
		      uint64_t end, const char *name, uint64_t *ret, struct error *e) must_check;
/* Of one behind a descriptor of ours. */
int ipc_number_opened(struct checkpoint *c, int fd, const char *name, uint64_t *ret,
		      struct error *e) must_check;
/* Is it one of a namespace of the tree? Known if anybody has it attached, and the memory of the
 * kernel can be read: k, of the process that asks, or NULL. */
bool ipc_is_segment_of_tree(struct checkpoint *c, struct kernel_memory *k, int fd);
/* The namespace, and the number in there. */
uint64_t ipc_space_of_segment(const struct checkpoint *c, uint64_t number);
static inline int ipc_id_of_segment(uint64_t number)
{
	return (int)(uint32_t)number;
}
/* Does the tree have more than one? */
bool ipc_spaces_nested(const struct checkpoint *c);

/*
 * A copy of a System V segment, for users who may attach it, but not open it. While checking:
 * whether it could be made.
 */
int ipc_copy_segment(struct checkpoint *c, uint64_t number, int *ret_fd,
		     struct error *e) must_check;
/* All tasks have been seen: what the tree uses, and its records. */
int ipc_checkpoint(struct checkpoint *c, struct error *e) must_check;

int ipc_restart_validate(const struct restart *r, struct error *e) must_check;
/* Does the image hold IPC objects of the root's namespace, so that a restart beside others gets a
 * namespace for them? */
bool ipc_restart_any(const struct restart *r);
/* own: in a namespace that was made for this tree, which gets the settings of the old one. */
int ipc_restart_begin(struct restart *r, bool own, struct error *e) must_check;
/* Makes the objects, or finds them; the tasks exist, and have the privileges of the restart. */
int ipc_restart_objects(struct restart *r, struct error *e) must_check;
/* Nothing can fail any more but the resuming: what was made stays. */
void ipc_restart_keep(struct restart *r);
void ipc_restart_end(struct restart *r); /* accepts that begin never ran */

#endif
