/* SPDX-License-Identifier: Apache-2.0 */
/* Time namespaces for the next children of tasks that are not in them. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/resident.h"
#include "ns/spaces.h"
#include "ns/timens.h"

/* ---- checkpoint ---- */

static int refused(struct error *e, const char *why)
{
	return error_set(e, -EXDEV, E_TASK_NAMESPACE,
			 "its next child would be in another time namespace than itself, %s", why);
}

int timens_next_look(struct checkpoint *c, const struct checkpoint_process *p, pid_t tid,
		     uint64_t clocks, uint64_t *ret, struct error *e)
{
	uint64_t next =
		space_number(c->proc_fd, e, "%d/task/%d/ns/time_for_children", p->frozen->pid, tid);
	const struct checkpoint_space *s;
	int r = 0;

	if (!next)
		return e->err;
	if (next == clocks)
		return 0;
	if (space_is_own(c, CLONE_NEWTIME, next)) {
		r = error_object(e, refused(e, "in that of the root task"), "task %d (%s)", tid,
				 p->stat.comm);
		return checkpoint_refuse(c, r, e);
	}
	s = space_by_number(c, CLONE_NEWTIME, next)
		    ?: space_add(c, CLONE_NEWTIME, next,
				 procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e,
					     "%d/task/%d/ns/time_for_children", p->frozen->pid,
					     tid),
				 e);
	if (!s)
		return e->err;
	*ret = s->id;
	return 0;
}

bool timens_is_next(const struct checkpoint *c, uint64_t id)
{
	vec_for_each (m, &c->spaces.members)
		if (m->next_time == id)
			return true;
	return false;
}

/*
 * Whose /proc/PID/timens_offsets tells of it: that is about the namespace of children. 0: nobody's.
 */
pid_t timens_teller(const struct checkpoint *c, uint64_t id)
{
	vec_for_each (m, &c->spaces.members)
		if (m->next_time == id || (m->ids[SPACE_TIME] == id && !m->next_time))
			return m->tid;
	return 0;
}

static const struct checkpoint_process *process_of(const struct checkpoint *c, pid_t tid)
{
	vec_for_each (p, &c->processes)
		vec_for_each (t, &p->frozen->threads)
			if (t->tid == tid)
				return p;
	return NULL;
}

static bool descends(const struct checkpoint *c, const struct checkpoint_process *p, pid_t from)
{
	for (size_t left = c->processes.n; p && left; left--) {
		if (p->frozen->ppid == from)
			return true;
		p = process_of(c, p->frozen->ppid);
	}
	return false;
}

static bool is_lonely(const struct checkpoint_process *p)
{
	size_t n = 0;

	vec_for_each (t, &p->frozen->threads)
		n += !t->zombie;
	return n < 2 && !p->frozen->threads.v[0].zombie;
}

/*
 * Who goes there by setns(), must be alone (timens_install()). Whoever is not, goes before he has
 * threads: then the namespace has to be there, made by a thread that begins its process.
 */
static int check_those_inside(const struct checkpoint *c, const struct checkpoint_member *m,
			      const struct checkpoint_process *p, size_t *n, struct error *e)
{
	*n = 0;
	vec_for_each (x, &c->spaces.members) {
		const struct checkpoint_process *in = process_of(c, x->tid);

		if (x->ids[SPACE_TIME] != m->next_time || !in)
			continue;
		++*n;
		if (space_of_user(c, in->frozen->pid))
			return refused(e, "which a task of a user namespace is in");
		if (!is_lonely(in) &&
		    (m->tid != p->frozen->pid || !descends(c, in, p->frozen->pid)))
			return refused(e, "which a process with threads is in that does not "
					  "descend from it");
	}
	return 0;
}

/* Other threads have it, too: those that were made later (CLONE_VM in copy_namespaces()). */
static int check_those_with_it(const struct checkpoint *c, const struct checkpoint_member *m,
			       const struct checkpoint_process *p, size_t *n, struct error *e)
{
	const struct checkpoint_member *first = space_member(c, p->frozen->pid);

	*n = 0;
	vec_for_each (x, &c->spaces.members) {
		if (x->next_time != m->next_time || x == m)
			continue;
		++*n;
		if (process_of(c, x->tid) != p)
			return refused(e, "and so would that of another process");
		if (!first || first->next_time != m->next_time)
			return refused(e, "and so would that of another thread, but not of the "
					  "first one of its process");
	}
	return 0;
}

/* Whoever has its memory is made when it has made the namespace, and gets it, too. */
static int check_born_with_it(const struct checkpoint *c, const struct checkpoint_process *p,
			      struct error *e)
{
	vec_for_each (t, &p->frozen->threads) {
		const struct checkpoint_member *m = space_member(c, t->tid);

		if (!t->zombie && (!m || !m->next_time))
			return refused(e, "but not those of all threads of its process");
	}
	vec_for_each (other, &c->processes)
		if (other != p && other->mm && other->mm == p->mm)
			return refused(e, "and its memory is that of another process, too");
	return 0;
}

static int check_one(struct checkpoint *c, const struct checkpoint_member *m,
		     const struct checkpoint_process *p, struct error *e)
{
	const struct checkpoint_space *s = space_by_id(c, m->next_time);
	size_t inside, with_it;
	int r;

	if (space_of_user(c, p->frozen->pid) ||
	    c->spaces.looked->list.v[s - c->spaces.list.v]->msg.user_namespace)
		return refused(e, "and it or the time namespace belongs to a user namespace that "
				  "the root task is not in");
	vec_for_each (t, &p->frozen->threads)
		if (t->tid == m->tid && t->in_vfork)
			return refused(e, "and it waits in vfork()");
	r = check_those_inside(c, m, p, &inside, e);
	if (r >= 0)
		r = check_those_with_it(c, m, p, &with_it, e);
	if (r < 0 || (!inside && !with_it) || m->tid != p->frozen->pid)
		return r;
	return check_born_with_it(c, p, e);
}

int timens_next_check(struct checkpoint *c, struct error *e)
{
	int r = 0;

	vec_for_each (m, &c->spaces.members) {
		const struct checkpoint_process *p = m->next_time ? process_of(c, m->tid) : NULL;

		if (!p || r < 0)
			continue;
		r = check_one(c, m, p, e);
		if (r < 0)
			error_object(e, r, "task %d (%s)", m->tid, p->stat.comm);
		r = checkpoint_refuse(c, r, e);
	}
	return r;
}

/* ---- restart ---- */

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

int timens_next_validate(const struct restart *r, const struct restart_process *p, struct error *e)
{
	vec_for_each (t, &p->tasks) {
		const uint64_t id = t->msg->next_time_namespace;

		if (!id)
			continue;
		if (restart_space_missing(r, id, CLONE_NEWTIME) || t->msg->is_zombie ||
		    p->msg->vfork_tid || p->msg->user_namespace)
			return invalid(e, "an impossible time namespace for children");
		vec_for_each (other, &r->processes)
			vec_for_each (x, &other->tasks)
				if (x->msg->next_time_namespace == id && other != p)
					return invalid(e, "two processes with one time namespace "
							  "for children");
	}
	return 0;
}

bool timens_next_makes(const struct restart *r, uint64_t id)
{
	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks)
			if (t->msg->next_time_namespace == id)
				return true;
	return false;
}

/* Are there others that have to be in it, or have it for their children? */
static bool is_for_others(const struct restart *r, const struct restart_task *by)
{
	const uint64_t id = by->msg->next_time_namespace;

	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks) {
			if (t->msg->next_time_namespace == id && t != by)
				return true;
			for (size_t i = 0; i < t->msg->n_namespaces; i++)
				if (t->msg->namespaces[i] == id)
					return true;
		}
	return false;
}

/* Once somebody has entered it its clocks cannot be set any more (timens_set_vvar_page()). */
static int begin(struct restart *r, int ns, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	const struct resident_begin how = {
		.proc_fd = r->proc_fd, .pidns = -1, .enter = &ns, .n = 1};

	return resident_begin(&res, &how, e);
}

static int make(struct restart *r, struct restart_task *t, struct restart_space *s, struct error *e)
{
	const Reprise__Container *msg = restart_find(r, RECORD_NAMESPACE, s->id);
	struct stat st;
	long made = agent_syscall(t->process->agent, t->tid, NULL, e, SYS_unshare,
				  (const uint64_t[6]){CLONE_NEWTIME});
	int res;

	if (made < 0)
		return error_errno(e, (int)made, E_NAMESPACE,
				   "cannot make a time namespace for children");
	res = timens_set(r, t->tid, msg->time, e);
	if (res >= 0)
		res = s->ns = procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e,
					  "%d/ns/time_for_children", t->tid);
	if (res >= 0 && msg->time->begun)
		res = begin(r, s->ns, e);
	if (res < 0)
		return res;
	if (fstat(s->ns, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat");
	s->ino = st.st_ino;
	return 0;
}

int timens_next_make(struct restart *r, struct restart_task *t, bool late, struct error *e)
{
	struct restart_space *s =
		t->msg->next_time_namespace ? space_made(r, t->msg->next_time_namespace) : NULL;
	uint64_t has;
	int res;

	if (!s || (!late && !s->ino && !is_for_others(r, t)))
		return 0;
	if (!s->ino) {
		res = make(r, t, s, e);
		return res < 0 ? error_object(e, res, "task %d", t->vtid) : 0;
	}
	has = space_number(r->proc_fd, e, "%d/ns/time_for_children", t->tid);
	if (has && has != s->ino)
		error_object(e,
			     error_set(e, -EOPNOTSUPP, E_NAMESPACE,
				       "did not get the time namespace for its children"),
			     "task %d", t->vtid);
	return e->err;
}
