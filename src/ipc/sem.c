/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V semaphore sets. Pending operations are those of the tasks that are
 * blocked in them: they issue them again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "ipc/sysv.h"

#define VALUE_MAX 32767 /* SEMVMX */

union semun {
	int val;
	struct semid_ds *buf;
	unsigned short *array;
};

struct sem_state {
	unsigned short *values;
	int32_t *pids;
};

/* ---- checkpoint ---- */

/* -EACCES, or -EIDRM or -EINVAL if it was removed. */
static int read_state(const struct sysv_object *o, struct sem_state *st, struct scratch *s)
{
	st->values = scratch_alloc(s, o->nsems * sizeof(*st->values));
	st->pids = scratch_alloc(s, o->nsems * sizeof(*st->pids));
	if (!st->values || !st->pids)
		return -ENOMEM;
	if (semctl(o->id, 0, GETALL, (union semun){.array = st->values}) < 0)
		return -errno;
	for (size_t i = 0; i < o->nsems; i++) {
		st->pids[i] = semctl(o->id, (int)i, GETPID);
		if (st->pids[i] < 0)
			return -errno;
	}
	return 0;
}

static int may_not_read(struct checkpoint *c, const struct sysv_object *o, int r, struct error *e)
{
	if (r == -EIDRM || r == -EINVAL)
		return 0; /* removed meanwhile */
	if (r == -EACCES && !o->tree && !sysv_of_our_user(c, o))
		return 0;
	return error_errno(e, r, r == -EACCES ? E_PERMISSION : E_IPC_STATE, "cannot be read");
}

static int save_values(const struct sysv_object *o, const struct sem_state *st,
		       Reprise__SemSet *msg, struct scratch *s, struct error *e)
{
	msg->values = scratch_alloc(s, o->nsems * sizeof(*msg->values));
	if (!msg->values)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for its values");
	for (size_t i = 0; i < o->nsems; i++)
		msg->values[i] = st->values[i];
	msg->n_values = o->nsems;
	msg->pids = st->pids;
	msg->n_pids = o->nsems;
	return 0;
}

static int save_set(struct checkpoint *c, struct sysv_object *o, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__SemSet msg = REPRISE__SEM_SET__INIT;
	const int64_t last = o->times[0] > o->ctime ? o->times[0] : o->ctime;
	enum ipc_relation relation;
	struct sem_state st;
	int r = read_state(o, &st, &s);

	if (r < 0)
		return may_not_read(c, o, r, e);
	for (size_t i = 0; i < o->nsems; i++)
		sysv_used_by(c, o, st.pids[i], st.pids[i] || st.values[i] ? last : 0);
	relation = sysv_relation(c, o);
	if (relation == IPC_NOT_OURS)
		return 0;
	msg.nsems = (uint32_t)o->nsems;
	msg.otime = o->times[0];
	r = sysv_save_perm(c, o, relation, &s, &msg.perm, e);
	if (r >= 0 && relation != IPC_OUTSIDE_TOO)
		r = save_values(o, &st, &msg, &s, e);
	return r < 0 ? r
		     : checkpoint_put(c, RECORD_SEM_SET, objects_fresh(c->objects), &msg.base, e);
}

int sem_checkpoint(struct checkpoint *c, uint64_t space, struct error *e)
{
	vec_for_each (o, &c->ipc->objects[SYSV_SEM]) {
		int r = o->space == space ? save_set(c, o, e) : 0;

		if (r < 0)
			sysv_error(e, r, SYSV_SEM, o->id, o->key);
		r = checkpoint_refuse(c, r, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- restart ---- */

const Reprise__SemSet *sem_of_image(const struct restart *r, uint64_t space, int semid)
{
	const Reprise__SemSet *m;

	for (size_t i = 0; (m = restart_nth(r, RECORD_SEM_SET, i, NULL)); i++)
		if (m->perm && m->perm->id == semid && m->perm->namespace_ == space)
			return m;
	return NULL;
}

int sem_validate(const struct restart *r, struct error *e)
{
	const Reprise__SemSet *m;

	for (size_t i = 0; (m = restart_nth(r, RECORD_SEM_SET, i, NULL)); i++) {
		size_t n;
		int res = sysv_validate_perm(r, m->perm, e);

		if (res < 0)
			return res;
		n = m->perm->relation == IPC_OUTSIDE_TOO ? 0 : m->nsems;
		if (!m->nsems || m->nsems > UINT16_MAX || m->n_values != n || m->n_pids != n)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "semaphore set %d of %u semaphores", m->perm->id,
					 m->nsems);
		for (size_t k = 0; k < n; k++)
			if (m->values[k] > VALUE_MAX)
				return error_set(e, -EBADMSG, E_IMAGE_INVALID,
						 "semaphore %zu of set %d has the value %u", k,
						 m->perm->id, m->values[k]);
		if (sem_of_image(r, m->perm->namespace_, m->perm->id) != m)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "two semaphore sets have the id %d", m->perm->id);
	}
	return 0;
}

/* A list of operations that one task performs, some at a time. */
struct operations {
	struct restart_task *task; /* NULL: ourselves */
	int semid;
	bool done; /* at least one */
	size_t n;
	struct sembuf v[64];
};

static int perform(struct operations *o, struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	uint32_t at;
	int call, r;

	if (!o->n)
		return 0;
	o->done = true;
	if (!o->task) {
		r = semop(o->semid, o->v, o->n) < 0 ? -errno : 0;
		o->n = 0;
		return r < 0 ? error_errno(e, r, E_RESTORE, "cannot operate on it") : 0;
	}
	at = batch_data(&b, o->v, (uint32_t)(o->n * sizeof(o->v[0])));
	call = batch_call(&b, SYS_semop, VAL(o->semid), DATA(at), VAL(o->n));
	r = agent_run(o->task->process->agent, o->task->tid, NULL, &b, e);
	if (r < 0)
		return r;
	r = (int)batch_result(&b, call);
	o->n = 0;
	if (r == -EAGAIN)
		return error_set(e, r, E_IPC_CHANGED,
				 "what task %d held of it is held by somebody else",
				 o->task->process->vpid);
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot operate on it") : 0;
}

static int add(struct operations *o, size_t num, int64_t op, int flags, struct error *e)
{
	o->v[o->n++] = (struct sembuf){(unsigned short)num, (short)op, (short)(flags | IPC_NOWAIT)};
	return o->n < sizeof(o->v) / sizeof(o->v[0]) - 1 ? 0 : perform(o, e);
}

/*
 * An operation with SEM_UNDO brings its opposite on the list. In a new set it is
 * paired with one without, and the value is what it was before.
 */
static int adjust(struct operations *o, const Reprise__SemAdjust *a, bool made, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < a->n_adjust && r >= 0; i++) {
		int64_t n = a->adjust[i];

		if (n > 0 && made)
			r = add(o, i, n, 0, e);
		if (n && r >= 0)
			r = add(o, i, -n, SEM_UNDO, e);
		if (n < 0 && made && r >= 0)
			r = add(o, i, n, 0, e);
	}
	return r < 0 ? r : perform(o, e);
}

static int make_lists(struct restart *r, const Reprise__SemSet *m, bool made, struct error *e)
{
	const Reprise__SemUndo *list;
	uint64_t id;
	int res = 0;

	for (size_t i = 0; (list = restart_nth(r, RECORD_SEM_UNDO, i, &id)); i++)
		for (size_t k = 0; k < list->n_sets && res >= 0; k++) {
			struct operations o = {.task = undo_holder(r, id), .semid = m->perm->id};

			if (list->namespace_ == m->perm->namespace_ &&
			    list->sets[k]->semid == m->perm->id && o.task)
				res = adjust(&o, list->sets[k], made, e);
		}
	return res;
}

/* From 0 to what they were, each by the process that changed it last (GETPID). */
static int add_values(struct restart *r, const Reprise__SemSet *m, struct error *e)
{
	_cleanup_(free_ptr) bool *done = calloc(m->nsems, sizeof(*done));
	bool any = false;
	int res = done ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for its values");

	for (size_t i = 0; i < m->nsems && res >= 0; i++) {
		struct restart_task *actor = sysv_actor(r, m->perm->namespace_, m->pids[i]);
		struct operations o = {.task = actor ?: sysv_stand_in(r, m->perm->namespace_),
				       .semid = m->perm->id};

		for (size_t k = i; k < m->nsems && res >= 0; k++) {
			if (done[k] || m->pids[k] != m->pids[i])
				continue;
			done[k] = true;
			if (m->values[k] || actor)
				res = add(&o, k, m->values[k], 0, e);
		}
		if (res >= 0)
			res = perform(&o, e);
		any |= o.done;
	}
	if (res >= 0 && !any) {
		struct operations o = {.task = sysv_stand_in(r, m->perm->namespace_),
				       .semid = m->perm->id};

		/* There has been an operation: programs look at that, to know whether a set is
		 * ready. */
		res = add(&o, 0, 0, 0, e);
		if (res >= 0)
			res = perform(&o, e);
	}
	return res;
}

/* There has been none: the time of the last operation stays 0 with SETVAL. */
static int set_values(struct restart *r, const Reprise__SemSet *m, struct error *e)
{
	for (size_t i = 0; i < m->nsems; i++) {
		struct restart_task *t = sysv_actor(r, m->perm->namespace_, m->pids[i]);
		const uint64_t args[6] = {(uint64_t)m->perm->id, i, SETVAL, m->values[i]};
		long res;

		if (!t && !m->values[i])
			continue;
		if (!t)
			t = sysv_stand_in(r, m->perm->namespace_);
		if (t)
			res = agent_syscall(t->process->agent, t->tid, NULL, e, SYS_semctl, args);
		else
			res = semctl(m->perm->id, (int)i, SETVAL,
				     (union semun){.val = (int)m->values[i]}) < 0
				      ? -errno
				      : 0;
		if (res < 0)
			return error_errno(e, (int)res, E_RESTORE, "cannot set a value of it");
	}
	return 0;
}

static int make(struct restart *r, const Reprise__SemSet *m, struct error *e)
{
	struct semid_ds ds;
	int id, res;

	id = sysv_create(r, SYSV_SEM, m->perm, (int)m->nsems, e);
	if (id < 0)
		return id;
	if (semctl(id, 0, IPC_STAT, (union semun){.buf = &ds}) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot be looked at");
	ds.sem_perm.uid = m->perm->uid;
	ds.sem_perm.gid = m->perm->gid;
	ds.sem_perm.mode = m->perm->mode & 0777;
	res = make_lists(r, m, true, e);
	if (res >= 0)
		res = m->otime ? add_values(r, m, e) : set_values(r, m, e);
	if (res >= 0 && semctl(id, 0, IPC_SET, (union semun){.buf = &ds}) < 0)
		return error_errno(e, -errno, E_CREDENTIALS, "its owner cannot be set");
	return res;
}

static int64_t clamp(int64_t value)
{
	return value < 0 ? 0 : value > VALUE_MAX ? VALUE_MAX : value;
}

/* What is there is what the tree has left, its adjustments made when it was killed. */
static bool is_unchanged(struct restart *r, const Reprise__SemSet *m, const unsigned short *now)
{
	for (uint32_t i = 0; i < m->nsems; i++)
		if (now[i] !=
		    clamp(m->values[i] + undo_total(r, m->perm->namespace_, m->perm->id, i)))
			return false;
	return true;
}

/* Where an adjustment had reached a limit. */
static int correct(struct restart *r, const Reprise__SemSet *m, unsigned short *now,
		   struct error *e)
{
	struct operations o = {.task = sysv_stand_in(r, m->perm->namespace_), .semid = m->perm->id};
	int res = 0;

	if (semctl(m->perm->id, 0, GETALL, (union semun){.array = now}) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot be read");
	for (size_t i = 0; i < m->nsems && res >= 0; i++)
		if (now[i] != m->values[i])
			res = add(&o, i, (int64_t)m->values[i] - now[i], 0, e);
	return res < 0 ? res : perform(&o, e);
}

static int use(struct restart *r, const Reprise__SemSet *m, const struct semid_ds *ds,
	       struct error *e)
{
	_cleanup_(free_ptr) unsigned short *now = calloc(UINT16_MAX + 1, sizeof(*now));
	bool shared = m->perm->relation == IPC_OUTSIDE_TOO, same = ds->sem_nsems == m->nsems;
	int res;

	if (!now)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for its values");
	if (same && !shared) {
		if (semctl(m->perm->id, 0, GETALL, (union semun){.array = now}) < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot be read");
		same = is_unchanged(r, m, now);
	}
	res = sysv_changed(r, SYSV_SEM, m->perm, same && sysv_same_perm(m->perm, &ds->sem_perm),
			   ds->sem_ctime, e);
	if (res <= 0)
		return res;
	if (ds->sem_nsems != m->nsems)
		return error_set(e, -ESTALE, E_IPC_CHANGED, "has %lu semaphores instead of %u",
				 (unsigned long)ds->sem_nsems, m->nsems);
	res = make_lists(r, m, false, e);
	if (res >= 0 && !shared && same)
		res = correct(r, m, now, e);
	return res;
}

static int restart_set(struct restart *r, void *arg, struct error *e)
{
	const Reprise__SemSet *m = arg;
	struct semid_ds ds;
	int there = semctl(m->perm->id, 0, IPC_STAT, (union semun){.buf = &ds}) < 0 ? -errno : 0;
	int res = sysv_is_there(r, SYSV_SEM, m->perm, there, &ds.sem_perm,
				m->perm->key ? semget(m->perm->key, 0, 0) : -1, e);

	if (res < 0)
		return res;
	switch ((enum sysv_found)res) {
	case SYSV_ABSENT:
		return make(r, m, e);
	case SYSV_PRESENT:
		return use(r, m, &ds, e);
	case SYSV_GIVEN_UP:
		break;
	}
	return 0;
}

int sem_restart(struct restart *r, struct error *e)
{
	const Reprise__SemSet *m;

	for (size_t i = 0; (m = restart_nth(r, RECORD_SEM_SET, i, NULL)); i++) {
		int res = ipc_restart_visit(r, m->perm->namespace_, restart_set, (void *)m, e);

		if (res < 0)
			return sysv_error(e, res, SYSV_SEM, m->perm->id, m->perm->key);
	}
	return 0;
}
