/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V objects at a restart. What is there already, unchanged, is used as it
 * is; what has gone is made again with the number and the key that it had, since the application
 * knows them; where another one has these the restart is refused, or the object given up if the
 * tree may not have used it at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ipc/sysv.h"
#include "net/unix_cred.h"

int ipc_restart_visit(struct restart *r, uint64_t space,
		      int (*fn)(struct restart *r, void *arg, struct error *e), void *arg,
		      struct error *e)
{
	uint64_t was, unused;
	int res = restart_enter_ipc(r, space, &was), back;

	if (res < 0)
		return error_errno(e, res, E_NAMESPACE, "cannot enter its IPC namespace");
	res = fn(r, arg, e);
	back = restart_enter_ipc(r, was, &unused);
	return back < 0 && res >= 0 ? error_errno(e, back, E_INTERNAL, "cannot leave a namespace")
				    : res;
}

int sysv_validate_perm(const struct restart *r, const Reprise__IpcPerm *m, struct error *e)
{
	if (!m || m->id < 0 || m->mode & ~0777u || m->relation < IPC_OWN ||
	    m->relation > IPC_PERHAPS || (m->namespace_ && m->relation != IPC_OWN) ||
	    restart_space_missing(r, m->namespace_, CLONE_NEWIPC))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible System V object");
	return 0;
}

void sysv_ask_for_id(struct restart *r, enum sysv_kind kind, int id)
{
	static const char *const names[] = {"sem", "msg", "shm"};
	_cleanup_(close_fd) int fd = procfs_open(r->proc_fd, O_WRONLY | O_CLOEXEC, NULL,
						 "sys/kernel/%s_next_id", names[kind]);
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", id);

	if (fd >= 0)
		ignore(write(fd, text, (size_t)n), "see above");
}

static bool can_act(const struct restart *r, uint64_t space, const struct restart_task *t)
{
	/* There is no agent yet for a child of vfork(): images that need one are not made. */
	return !t->msg->is_zombie && !t->process->msg->zombie && t->process->agent &&
	       restart_space_of(r, t, CLONE_NEWIPC) == space;
}

struct restart_task *sysv_actor(struct restart *r, uint64_t space, pid_t vpid)
{
	struct restart_task *t = vpid > 0 ? restart_task_by_vtid(r, vpid) : NULL;

	return t && can_act(r, space, t) ? t : NULL;
}

struct restart_task *sysv_stand_in(struct restart *r, uint64_t space)
{
	if (!space)
		return &r->processes.v[0].tasks.v[0];
	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks)
			if (can_act(r, space, t))
				return t;
	return NULL;
}

static void warn(struct restart *r, enum sysv_kind kind, const Reprise__IpcPerm *m,
		 struct error *problem)
{
	sysv_error(problem, -ESTALE, kind, m->id, m->key);
	if (r->warn)
		r->warn(r->warn_arg, problem);
	error_clear(problem);
}

/* No advice to remove what may be somebody else's. */
static void warn_perhaps(struct restart *r, enum sysv_kind kind, const Reprise__IpcPerm *m,
			 const char *what)
{
	struct error problem = {};

	error_set(&problem, -ESTALE, E_IPC_STATE,
		  "may have been used by the tree, but %s: it is left as it is", what);
	warn(r, kind, m, &problem);
}

static int taken(struct restart *r, enum sysv_kind kind, const Reprise__IpcPerm *m,
		 const char *what, struct error *e)
{
	if (m->relation != IPC_PERHAPS)
		return error_set(e, -EEXIST, E_IPC_TAKEN, "%s", what);
	warn_perhaps(r, kind, m, what);
	return SYSV_GIVEN_UP;
}

int sysv_is_there(struct restart *r, enum sysv_kind kind, const Reprise__IpcPerm *m, int stat,
		  const struct ipc_perm *now, int of_key, struct error *e)
{
	if (stat == 0 && now->__key == m->key)
		return SYSV_PRESENT;
	if (stat != -EINVAL)
		return taken(r, kind, m, "another one has its number", e);
	if (of_key >= 0)
		return taken(r, kind, m, "another one has its key", e);
	if (m->relation == IPC_OUTSIDE_TOO)
		return error_set(
			e, -ENOENT, E_IPC_SHARED,
			"is not there any more, and was used by processes outside the tree, too");
	return SYSV_ABSENT;
}

bool sysv_same_perm(const Reprise__IpcPerm *m, const struct ipc_perm *now)
{
	return m->uid == now->uid && m->gid == now->gid && m->cuid == now->cuid &&
	       m->cgid == now->cgid && m->mode == (now->mode & 0777u);
}

int sysv_changed(struct restart *r, enum sysv_kind kind, const Reprise__IpcPerm *m, bool same,
		 int64_t ctime, struct error *e)
{
	struct error problem = {};

	/* Those who share it change it: it has to be the same one, no more. */
	if (m->relation == IPC_OUTSIDE_TOO)
		same = ctime == m->ctime;
	if (same)
		return m->relation != IPC_PERHAPS;
	if (m->relation == IPC_PERHAPS) {
		warn_perhaps(r, kind, m, "was changed after the checkpoint");
		return 0;
	}
	if (m->relation == IPC_OUTSIDE_TOO)
		error_set(&problem, -ESTALE, E_IPC_CHANGED,
			  "is another one than at the checkpoint, or was set anew");
	else
		error_set(&problem, -ESTALE, E_IPC_CHANGED, "was changed after the checkpoint");
	if (!r->changed_files_allowed) {
		*e = problem;
		return -ESTALE;
	}
	warn(r, kind, m, &problem);
	return 1;
}

struct creation {
	enum sysv_kind kind;
	key_t key;
	size_t n;
	int flags;
};

static int create(void *arg)
{
	const struct creation *c = arg;
	const int flags = IPC_CREAT | IPC_EXCL | c->flags;
	int id;

	if (c->kind == SYSV_SHM)
		id = shmget(c->key, c->n, flags);
	else
		id = c->kind == SYSV_SEM ? semget(c->key, (int)c->n, flags) : msgget(c->key, flags);

	return id < 0 ? -errno : id;
}

int sysv_get(struct restart *r, enum sysv_kind kind, const Reprise__IpcPerm *m, size_t n, int flags,
	     struct error *e)
{
	/* In a namespace of its own nobody runs yet, and whoever acts need not be its owner. */
	struct creation c = {kind, m->key, n, flags | (m->namespace_ ? 0666 : 0600)};
	int id;

	sysv_ask_for_id(r, kind, m->id);
	id = unix_cred_as(m->cuid, m->cgid, create, &c, e);
	return id < 0 ? error_errno(e, id, E_RESTORE, "cannot be made") : id;
}

static void destroy(enum sysv_kind kind, int id)
{
	if (kind == SYSV_SEM)
		semctl(id, 0, IPC_RMID);
	else
		msgctl(id, IPC_RMID, NULL);
}

int sysv_create(struct restart *r, enum sysv_kind kind, const Reprise__IpcPerm *m, int n,
		struct error *e)
{
	struct ipc_made *made = m->namespace_ ? NULL : vec_push(&r->ipc->made);
	int id;

	/* What is in a namespace of its own goes with it. */
	if (!made && !m->namespace_)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an IPC object");
	id = sysv_get(r, kind, m, (size_t)n, 0, e);
	if (made)
		*made = (struct ipc_made){kind, id};
	if (id >= 0 && id != m->id)
		return error_set(e, -EPERM, E_CREDENTIALS,
				 "cannot have its number again (it would be %d)", id);
	return id;
}

void ipc_restart_keep(struct restart *r)
{
	if (!r->ipc)
		return;
	r->ipc->made.n = 0;
	vec_for_each (q, &r->ipc->queues)
		q->made = false;
}

void ipc_restart_end(struct restart *r)
{
	if (!r->ipc)
		return;
	vec_for_each (m, &r->ipc->made)
		if (m->id >= 0)
			destroy(m->kind, m->id);
	mqueue_release(r);
	vec_free(&r->ipc->made);
	free(r->ipc);
	r->ipc = NULL;
}
