/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_VFORK_H
#define REPRISE_KERNEL_VFORK_H

#include "core/scratch.h"
#include "kernel.pb-c.h"
#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * Threads that wait in vfork() for a child to call exec or to end (see
 * doc/design.md). They execute nothing for us, and no stop tells of them.
 */

/* For a check, whose tree runs: tells which child each waits for, as a freeze does. */
void vfork_find(struct checkpoint *c);
/* What of such a thread cannot be saved. */
int vfork_check(struct checkpoint *c, struct checkpoint_process *p, pid_t tid,
		struct error *e) must_check;
/* The thread that waits for this process, 0: none. */
pid_t vfork_waiting_for(const struct checkpoint *c, const struct frozen_process *child);
/* The thread that answers for a process; NULL for a zombie. */
struct frozen_thread *vfork_speaker(struct freezer *f, struct frozen_process *p);
/* Do all threads of the process wait? Then the speaker is the child's. */
bool vfork_alone(const struct checkpoint_process *p);
/*
 * Corrects the answers that a speaker gave for a process or for a thread: what is its own, and
 * not that of the address space or inherited.
 */
int vfork_sighand(const struct checkpoint_process *p, Reprise__Sighand *msg) must_check;
void vfork_process(const struct checkpoint *c, const struct checkpoint_process *p,
		   Reprise__Process *msg);
void vfork_task(const struct frozen_thread *t, Reprise__Task *msg);

/* Is the process a child for which its parent waits, as the image has it? */
bool vfork_is_child(const struct restart_process *p);
/* The thread of its parent that does, NULL: none. */
struct restart_task *vfork_waiting_thread(const struct restart_process *child);
/* Does a thread of the process wait? Then it is to be complete before the child is made. */
bool vfork_is_parent(struct restart *r, const struct restart_process *p);
/*
 * Limits would hinder a child that is to be made yet, and are inherited by it. They are set after
 * that where its parent is still ours to change.
 */
bool vfork_defers_limits(struct restart *r, const struct restart_process *p);
/* Makes the child, by the thread that waits for it from then on. */
int vfork_restart(struct restart *r, struct restart_process *child, struct error *e) must_check;
/*
 * A control socket for the child: its parent had closed its own. own_table: the descriptors that
 * the child has are a copy, and are closed.
 */
int vfork_open_control(struct restart *r, struct restart_process *child, bool own_table,
		       struct error *e) must_check;
int vfork_close_control(struct restart *r, struct restart_process *child,
			struct error *e) must_check;
int vfork_validate(const struct restart *r, const struct restart_process *p,
		   struct error *e) must_check;

#endif
