/* SPDX-License-Identifier: Apache-2.0 */
#include "ipc/ipc.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <stdlib.h>

#include "fs/inode.h"
#include "fs.pb-c.h"
#include "ipc/limits.h"
#include "ipc/sysv.h"

int ipc_checkpoint_begin(struct checkpoint *c, struct error *e)
{
	c->ipc = calloc(1, sizeof(*c->ipc));
	if (!c->ipc || kcmp_index_new(&c->ipc->by_undo, KCMP_SYSVSEM) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the table of IPC objects");
	return 0;
}

void ipc_checkpoint_end(struct checkpoint *c)
{
	struct ipc_checkpoint *x = c->ipc;

	if (!x)
		return;
	kcmp_index_free(x->by_undo);
	for (int i = 0; i < 3; i++)
		vec_free(&x->objects[i]);
	vec_free(&x->leaked);
	vec_free(&x->listed.ids);
	vec_free(&x->placed.ids);
	vec_free(&x->queues);
	mqueue_places_free(x);
	vec_free(&x->lists);
	vec_free(&x->members);
	vec_free(&x->tids);
	vec_free(&x->users.ids);
	free(x);
	c->ipc = NULL;
}

struct kernel_memory *ipc_kernel_memory(struct checkpoint *c)
{
	struct ipc_checkpoint *x = c->ipc;

	if (!x->kernel_asked && checkpoint_kernel_memory(c, &x->kernel, &x->kernel_error) < 0)
		x->kernel = NULL;
	x->kernel_asked = true;
	return x->kernel;
}

static bool any_of(const struct checkpoint *c, uint64_t space)
{
	for (int i = 0; i < 3; i++)
		vec_for_each (o, &c->ipc->objects[i])
			if (o->space == space)
				return true;
	return false;
}

static int save_here(struct checkpoint *c, void *arg, struct error *e)
{
	const uint64_t *space = arg;
	int r = sem_checkpoint(c, *space, e);

	if (r >= 0)
		r = msg_checkpoint(c, *space, e);
	return r < 0 ? r : shm_checkpoint(c, *space, e);
}

int ipc_checkpoint(struct checkpoint *c, struct error *e)
{
	uint64_t space = 0;
	int r = sysv_list(c, e);

	if (r >= 0)
		r = undo_check_sharing(c, e);
	if (r >= 0)
		r = undo_checkpoint(c, e);
	if (r >= 0)
		r = shm_count_attachments(c, e);
	if (r >= 0)
		r = save_here(c, &space, e);
	for (size_t i = 0; i < c->spaces.list.n && r >= 0; i++) {
		space = c->spaces.list.v[i].id;
		if (c->spaces.list.v[i].flag == CLONE_NEWIPC && !c->spaces.list.v[i].refused &&
		    any_of(c, space))
			r = ipc_visit(c, space, save_here, &space, e);
	}
	return r < 0 ? r : limits_checkpoint(c, e);
}

/* ---- restart ---- */

int ipc_restart_validate(const struct restart *r, struct error *e)
{
	int res = sem_validate(r, e);

	if (res >= 0)
		res = undo_validate(r, e);
	if (res >= 0)
		res = msg_validate(r, e);
	if (res >= 0)
		res = shm_validate(r, e);
	if (res >= 0)
		res = mqueues_validate(r, e);
	return res < 0 ? res : limits_validate(r, e);
}

bool ipc_restart_any(const struct restart *r)
{
	const Reprise__ShmSegment *segment;
	const Reprise__MsgQueue *queue;
	const Reprise__Mqueue *mqueue;
	const Reprise__Inode *inode;
	const Reprise__SemSet *set;
	bool any = false;

	/* Images of older versions have no record of it but this. */
	for (size_t i = 0; (inode = restart_nth(r, RECORD_INODE, i, NULL)); i++)
		any |= inode->kind == INODE_SYSV_SHM && !inode->ipc_namespace;
	for (size_t i = 0; (segment = restart_nth(r, RECORD_SHM_SEGMENT, i, NULL)); i++)
		any |= !segment->perm->namespace_;
	for (size_t i = 0; (mqueue = restart_nth(r, RECORD_MQUEUE, i, NULL)); i++)
		any |= !mqueue->namespace_;
	for (size_t i = 0; (set = restart_nth(r, RECORD_SEM_SET, i, NULL)); i++)
		any |= !set->perm->namespace_;
	for (size_t i = 0; (queue = restart_nth(r, RECORD_MSG_QUEUE, i, NULL)); i++)
		any |= !queue->perm->namespace_;
	return any;
}

/* Nobody outside could reach what is in a namespace of its own. */
static int refuse_shared(enum sysv_kind kind, const Reprise__IpcPerm *m, struct error *e)
{
	if (m->relation != IPC_OUTSIDE_TOO)
		return 0;
	error_set(e, -EXDEV, E_IPC_SHARED,
		  "is used by processes outside the tree, too, and --pidns gives the tree an IPC "
		  "namespace of its own");
	return sysv_error(e, -EXDEV, kind, m->id, m->key);
}

int ipc_restart_begin(struct restart *r, bool own, struct error *e)
{
	const Reprise__MsgQueue *queue;
	const Reprise__ShmSegment *segment;
	const Reprise__Mqueue *mqueue;
	const Reprise__SemSet *set;
	int res = 0;

	r->ipc = calloc(1, sizeof(*r->ipc));
	if (!r->ipc)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the IPC objects");
	if (!own)
		return 0;
	for (size_t i = 0; res >= 0 && (set = restart_nth(r, RECORD_SEM_SET, i, NULL)); i++)
		res = refuse_shared(SYSV_SEM, set->perm, e);
	for (size_t i = 0; res >= 0 && (queue = restart_nth(r, RECORD_MSG_QUEUE, i, NULL)); i++)
		res = refuse_shared(SYSV_MSG, queue->perm, e);
	for (size_t i = 0; res >= 0 && (segment = restart_nth(r, RECORD_SHM_SEGMENT, i, NULL)); i++)
		res = refuse_shared(SYSV_SHM, segment->perm, e);
	for (size_t i = 0; res >= 0 && (mqueue = restart_nth(r, RECORD_MQUEUE, i, NULL)); i++)
		if (mqueue->shared)
			res = error_set(
				e, -EXDEV, E_IPC_SHARED,
				"processes outside the tree have the message queue /%s open, too, "
				"and --pidns gives the tree an IPC namespace of its own",
				mqueue->name);
	if (res >= 0)
		limits_restart(r);
	return res;
}

int ipc_restart_objects(struct restart *r, struct error *e)
{
	int res = sem_restart(r, e);

	if (res >= 0)
		res = msg_restart(r, e);
	if (res >= 0)
		res = shm_restart(r, e);
	return res < 0 ? res : mqueues_restart(r, e);
}
