/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SEM_UNDO: what is added to semaphores when a task ends. Tasks made with
 * CLONE_SYSVSEM, which threads are, share a list, and its last task's end counts.
 *
 * kcmp(2) tells who shares a list, and who has none. What is on it tells nobody but the kernel's
 * memory. Lists are made again by operations with SEM_UNDO, in a task that has the list: see sem.c.
 */
#include <errno.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ipc/sysv.h"
#include "model/glance.h"

#define ENTRIES_MAX 65536
#define NO_LIST	    (SIZE_MAX - 1)

/* ---- who shares ---- */

/* unshare(CLONE_SYSVSEM) leaves us without a list: equal are those who have none either. */
static int has_none(const struct checkpoint *c, pid_t tid)
{
	long r;

	if (glance_taken(c))
		return !glance_of(c, tid, GLANCE_UNDO);
	if (unshare(CLONE_SYSVSEM) < 0)
		return -errno;
	r = syscall(SYS_kcmp, (pid_t)syscall(SYS_gettid), tid, KCMP_SYSVSEM, 0, 0);
	return r < 0 ? -errno : r == 0;
}

static size_t process_list(const struct ipc_checkpoint *x, pid_t pid)
{
	for (size_t i = x->members.n; i > 0; i--)
		if (x->members.v[i - 1].pid == pid)
			return x->members.v[i - 1].main;
	return SIZE_MAX;
}

static bool leader_has(const struct checkpoint_process *p)
{
	return p->frozen->threads.n && !p->frozen->threads.v[0].zombie;
}

static const struct checkpoint_process *parent_of(const struct checkpoint *c,
						  const struct checkpoint_process *p)
{
	vec_for_each (q, &c->processes)
		if (q->frozen->pid == p->frozen->ppid)
			return q;
	return NULL;
}

static bool from_parent(struct checkpoint *c, const struct checkpoint_process *p, size_t list)
{
	const struct checkpoint_process *parent = parent_of(c, p);

	return parent && leader_has(parent) && leader_has(p) &&
	       process_list(c->ipc, parent->frozen->pid) == list;
}

/* The one whose list threads share when they are made again. */
static bool is_first_thread(const struct checkpoint_process *p, pid_t tid)
{
	vec_for_each (t, &p->frozen->threads)
		if (!t->zombie)
			return t->tid == tid;
	return false;
}

static int add_member(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		      size_t list)
{
	struct ipc_checkpoint *x = c->ipc;
	struct undo_member *m;
	size_t main = process_list(x, p->frozen->pid);

	if (main == SIZE_MAX && !is_first_thread(p, tid)) {
		main = NO_LIST; /* the first one has none */
	} else if (main == SIZE_MAX) {
		x->lists.v[list].begun += !from_parent(c, p, list);
		main = list;
	}
	x->lists.v[list].apart |= main != list;
	x->lists.v[list].tasks++;
	m = vec_push(&x->members);
	if (!m)
		return -ENOMEM;
	*m = (struct undo_member){p->frozen->pid, list, main};
	return 0;
}

static int list_of(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid, size_t *ret,
		   struct error *e)
{
	struct undo_list *list;
	uint64_t class;
	bool new;
	int r = kcmp_index_get(c->ipc->by_undo, glance_of(c, tid, GLANCE_UNDO), tid, 0, &class,
			       &new);

	if (r < 0)
		return error_errno(e, r, r == -EPERM ? E_PERMISSION : E_SYSTEM, "kcmp");
	*ret = class - 1;
	if (!new)
		return 0;
	list = vec_push(&c->ipc->lists);
	if (!list)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a SEM_UNDO list");
	list->id = objects_fresh(c->objects);
	list->space = space_of_task(c, tid, CLONE_NEWIPC);
	list->pid = p->frozen->pid;
	list->tid = tid;
	memcpy(list->comm, p->stat.comm, sizeof(list->comm) - 1);
	return 0;
}

int ipc_undo_identify(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		      uint64_t *ret_id, struct error *e)
{
	size_t list = 0;
	int r = has_none(c, tid);

	if (r == -ESRCH)
		return error_set(e, r, E_TASK_GONE, "thread %d has ended", tid);
	/* A kernel without System V IPC has no such lists. */
	if (r == -EOPNOTSUPP || r == -EINVAL)
		r = 1;
	if (r < 0)
		return error_errno(e, r, r == -EPERM ? E_PERMISSION : E_SYSTEM, "kcmp");
	if (r) {
		*ret_id = objects_fresh(c->objects);
		return 0;
	}
	r = list_of(c, p, tid, &list, e);
	if (r < 0)
		return r;
	*ret_id = c->ipc->lists.v[list].id;
	r = add_member(c, p, tid, list);
	if (r < 0)
		return error_set(e, r, E_NO_MEMORY, "no memory for a SEM_UNDO list");
	r = checkpoint_refer(c, tid, e);
	return r < 0 ? error_object(e, r, "the SEM_UNDO list of task %d", tid) : 0;
}

/* A list is made by fork or clone, of a process and its children, or it is of one thread alone. */
int undo_check_sharing(struct checkpoint *c, struct error *e)
{
	vec_for_each (list, &c->ipc->lists) {
		int r;

		if (list->tasks < 2 || (!list->apart && list->begun < 2))
			continue;
		error_set(
			e, -EOPNOTSUPP, E_TASK_STATE,
			"shares its SEM_UNDO list (CLONE_SYSVSEM) with tasks that are neither its "
			"threads nor its children");
		r = error_object(e, -EOPNOTSUPP, "task %d (%s)", list->pid, list->comm);
		r = checkpoint_refuse(c, r, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- what is on a list ---- */

/* Could the process have changed this set? Only a set that was ever operated on matters. */
static bool may_alter(struct checkpoint *c, const struct sysv_object *o)
{
	/* Nobody has operated on it since the tree was started. */
	if (!o->times[0] || o->times[0] + SLACK_S < c->ipc->begin)
		return false;
	return (o->mode & 022) || sysv_have_user(c, 0) || sysv_of_our_user(c, o);
}

/* Without a look into the kernel's memory: fine if there is nothing that could be on the list. */
static int refuse_unknown(struct checkpoint *c, const struct undo_list *list, struct error *e)
{
	vec_for_each (o, &c->ipc->objects[SYSV_SEM]) {
		if (o->space != list->space || !may_alter(c, o))
			continue;
		error_set(e, -EOPNOTSUPP, E_IPC_STATE,
			  "may hold adjustments of the System V semaphore set %d (SEM_UNDO), which "
			  "cannot be read: %s",
			  o->id, c->ipc->kernel_error.text);
		return error_object(e, -EOPNOTSUPP, "task %d (%s)", list->pid, list->comm);
	}
	return 0;
}

struct undo_layout {
	int undo_list, list_proc, un_list_proc, un_semid, un_semadj, un_size;
};

static bool read_layout(struct kernel_memory *k, struct undo_layout *l)
{
	l->undo_list = kernel_offset(k, "task_struct", "sysvsem.undo_list");
	l->list_proc = kernel_offset(k, "sem_undo_list", "list_proc");
	l->un_list_proc = kernel_offset(k, "sem_undo", "list_proc");
	l->un_semid = kernel_offset(k, "sem_undo", "semid");
	l->un_semadj = kernel_offset(k, "sem_undo", "semadj");
	l->un_size = kernel_size(k, "sem_undo");
	return l->undo_list >= 0 && l->list_proc >= 0 && l->un_list_proc >= 0 && l->un_semid >= 0 &&
	       l->un_semadj >= 0 && l->un_size >= 0;
}

/* The adjustments of one set; none if all are 0. */
static int read_adjustments(struct checkpoint *c, const struct undo_layout *l, uint64_t un,
			    uint64_t space, Reprise__SemUndo *msg, struct scratch *s)
{
	struct kernel_memory *k = c->ipc->kernel;
	uint64_t at = un + (uint64_t)l->un_semadj;
	Reprise__SemAdjust *m;
	struct sysv_object *o;
	bool any = false;
	int semid;
	int16_t *adj;

	if (kernel_read(k, un + (uint64_t)l->un_semid, &semid, sizeof(semid)) < 0)
		return -EFAULT;
	o = sysv_find(c, SYSV_SEM, space, semid);
	if (!o) /* removed; -1 */
		return 0;
	/* A pointer, or the array itself at the end of the structure. */
	if (l->un_semadj + (int)sizeof(uint64_t) <= l->un_size)
		at = kernel_pointer(k, at);
	adj = scratch_alloc(s, o->nsems * sizeof(*adj));
	m = scratch_message(s, Reprise__SemAdjust, reprise__sem_adjust__init);
	if (!adj || !m)
		return -ENOMEM;
	if (kernel_read(k, at, adj, o->nsems * sizeof(*adj)) < 0)
		return -EFAULT;
	m->semid = semid;
	m->n_adjust = o->nsems;
	m->adjust = scratch_alloc(s, o->nsems * sizeof(*m->adjust));
	if (!m->adjust)
		return -ENOMEM;
	for (size_t i = 0; i < o->nsems; i++) {
		m->adjust[i] = adj[i];
		any |= adj[i] != 0;
	}
	if (!any)
		return 0;
	o->tree = true;
	msg->sets[msg->n_sets++] = m;
	return 0;
}

static int walk(struct checkpoint *c, const struct undo_layout *l, const struct undo_list *list,
		Reprise__SemUndo *msg, struct scratch *s)
{
	struct kernel_memory *k = c->ipc->kernel;
	uint64_t task, at, head;
	size_t sets = c->ipc->objects[SYSV_SEM].n;
	int r = kernel_task(k, list->tid, &task);

	if (r < 0)
		return r;
	at = kernel_pointer(k, task + (uint64_t)l->undo_list);
	if (!at)
		return 0;
	msg->sets = scratch_alloc(s, sets * sizeof(*msg->sets));
	if (!msg->sets)
		return -ENOMEM;
	head = at + (uint64_t)l->list_proc;
	at = kernel_pointer(k, head);
	for (int i = 0; i < ENTRIES_MAX && at != head; i++) {
		if (!at || msg->n_sets == sets)
			return -EFAULT;
		r = read_adjustments(c, l, at - (uint64_t)l->un_list_proc, list->space, msg, s);
		if (r < 0)
			return r;
		at = kernel_pointer(k, at);
	}
	return at == head ? 0 : -EFAULT;
}

static int save_list(struct checkpoint *c, const struct undo_list *list, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__SemUndo msg = REPRISE__SEM_UNDO__INIT;
	struct undo_layout l;
	int r;

	if (!ipc_kernel_memory(c))
		return refuse_unknown(c, list, e);
	r = read_layout(c->ipc->kernel, &l) ? walk(c, &l, list, &msg, &s) : -EOPNOTSUPP;
	/* What changes while it is looked at is looked at again by the checkpoint. */
	if (r < 0 && c->checking)
		return 0;
	if (r < 0) {
		error_errno(e, r, E_IPC_STATE, "its SEM_UNDO list cannot be read");
		return error_object(e, r, "task %d (%s)", list->pid, list->comm);
	}
	msg.namespace_ = list->space;
	return msg.n_sets ? checkpoint_put(c, RECORD_SEM_UNDO, list->id, &msg.base, e) : 0;
}

int undo_checkpoint(struct checkpoint *c, struct error *e)
{
	bool used = false;
	int r = 0;

	vec_for_each (o, &c->ipc->objects[SYSV_SEM])
		used |= o->times[0] != 0;
	/* Without an operation there is no adjustment. */
	if (!used)
		return 0;
	vec_for_each (list, &c->ipc->lists) {
		r = checkpoint_refuse(c, save_list(c, list, e), e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- restart ---- */

int undo_validate(const struct restart *r, struct error *e)
{
	const Reprise__SemUndo *m;

	for (size_t i = 0; (m = restart_nth(r, RECORD_SEM_UNDO, i, NULL)); i++)
		for (size_t j = 0; j < m->n_sets; j++) {
			const Reprise__SemAdjust *a = m->sets[j];
			const Reprise__SemSet *set = sem_of_image(r, m->namespace_, a->semid);

			if (!set || a->n_adjust != set->nsems || set->perm->relation == IPC_PERHAPS)
				return error_set(
					e, -EBADMSG, E_IMAGE_INVALID,
					"adjustments of a semaphore set that is not there");
			for (size_t k = 0; k < a->n_adjust; k++)
				if (a->adjust[k] < -32768 || a->adjust[k] > 32767)
					return error_set(e, -EBADMSG, E_IMAGE_INVALID,
							 "an impossible adjustment of a semaphore");
		}
	return 0;
}

struct restart_task *undo_holder(struct restart *r, uint64_t id)
{
	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks)
			if (!p->msg->zombie && !t->msg->is_zombie && t->msg->sysvsem == id)
				return t;
	return NULL;
}

int64_t undo_total(const struct restart *r, uint64_t space, int semid, uint32_t n)
{
	const Reprise__SemUndo *m;
	int64_t sum = 0;

	for (size_t i = 0; (m = restart_nth(r, RECORD_SEM_UNDO, i, NULL)); i++)
		for (size_t j = 0; j < m->n_sets; j++)
			if (m->namespace_ == space && m->sets[j]->semid == semid)
				sum += m->sets[j]->adjust[n];
	return sum;
}
