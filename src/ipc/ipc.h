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
 * A copy of a System V segment, for users who may attach it, but not open it. While checking:
 * whether it could be made.
 */
int ipc_copy_segment(struct checkpoint *c, int id, int *ret_fd, struct error *e) must_check;
/* All tasks have been seen: what the tree uses, and its records. */
int ipc_checkpoint(struct checkpoint *c, struct error *e) must_check;

int ipc_restart_validate(const struct restart *r, struct error *e) must_check;
/* Does the image hold IPC objects, so that a restart beside others gets a namespace for them? */
bool ipc_restart_any(const struct restart *r);
/* own: in a namespace that was made for this tree, which gets the settings of the old one. */
int ipc_restart_begin(struct restart *r, bool own, struct error *e) must_check;
/* Makes the objects, or finds them; the tasks exist, and have the privileges of the restart. */
int ipc_restart_objects(struct restart *r, struct error *e) must_check;
/* Nothing can fail any more but the resuming: what was made stays. */
void ipc_restart_keep(struct restart *r);
void ipc_restart_end(struct restart *r); /* accepts that begin never ran */

#endif
