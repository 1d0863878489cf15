/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces of tasks that are not the root's: who is in which. */
#include "ns/spaces.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "model/glance.h"
#include "ns/mounts_late.h"
#include "ns/mounts_overlay.h"
#include "ns/timens.h"

const struct space_kind space_kinds[SPACE_KINDS] = {
	{"uts", CLONE_NEWUTS},	     {"ipc", CLONE_NEWIPC},   {"net", CLONE_NEWNET},
	{"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME}, {"mnt", CLONE_NEWNS},
};

int space_kind_of(uint64_t flag)
{
	for (int k = 0; k < SPACE_KINDS; k++)
		if (space_kinds[k].flag == flag)
			return k;
	return -1;
}

const char *space_kind_name(uint64_t flag)
{
	switch (flag) {
	case CLONE_NEWUSER:
		return "user";
	case CLONE_NEWPID:
		return "pid";
	default:
		return space_kind_of(flag) < 0 ? NULL : space_kinds[space_kind_of(flag)].name;
	}
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of namespaces");
}

uint64_t space_number(int proc_fd, struct error *e, const char *fmt, ...)
{
	_cleanup_(free_ptr) char *link = NULL;
	char path[128];
	const char *at;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	if (procfs_readlink(proc_fd, &link, e, "%s", path) < 0)
		return 0;
	at = strchr(link, '[');
	return at ? strtoull(at + 1, NULL, 10) : 0;
}

/* The user namespace that owns it, which is to be there before it. */
int space_find_owner(struct checkpoint *c, size_t i, struct error *e)
{
	struct space_contents *x = c->spaces.looked->list.v[i];
	int owner = ioctl(c->spaces.list.v[i].ns, NS_GET_USERNS), r;

	if (owner < 0)
		return error_set(e, -EOPNOTSUPP, E_TASK_NAMESPACE,
				 "belongs to a user namespace that is not below the root task's");
	r = user_space_get(c, owner, &x->msg.user_namespace, e);
	x->mounts.user = x->msg.user_namespace;
	return r;
}

/* At first sight; ns becomes ours. */
struct checkpoint_space *space_add(struct checkpoint *c, uint64_t flag, uint64_t ino, int ns,
				   struct error *e)
{
	struct spaces *sp = c->spaces.looked;
	struct space_contents **slot = ns < 0 ? NULL : vec_push(&sp->list);
	struct space_contents *x = slot ? calloc(1, sizeof(*x)) : NULL;
	struct checkpoint_space *s = x ? vec_push(&c->spaces.list) : NULL;

	if (!s) {
		free(x);
		sp->list.n -= slot != NULL;
		if (ns >= 0)
			no_memory(e);
		close_fd(&ns);
		return NULL;
	}
	*slot = x;
	reprise__container__init(&x->msg);
	x->msg.own = flag;
	x->network = (struct network)NETWORK_INIT;
	x->resident = (struct resident)RESIDENT_INIT;
	*s = (struct checkpoint_space){.id = objects_fresh(c->objects),
				       .flag = flag,
				       .ino = ino,
				       .ns = ns,
				       .root = -EBADF};
	return s;
}

/* The one of a task. */
static struct checkpoint_space *add_of(struct checkpoint *c, int kind, uint64_t ino,
				       const struct checkpoint_process *p, pid_t tid,
				       struct error *e)
{
	struct checkpoint_space *s =
		space_add(c, space_kinds[kind].flag, ino,
			  procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/task/%d/ns/%s",
				      p->frozen->pid, tid, space_kinds[kind].name),
			  e);
	struct space_contents *x;

	if (!s)
		return NULL;
	x = c->spaces.looked->list.v[c->spaces.looked->list.n - 1];
	x->tid = tid;
	snprintf(x->comm, sizeof(x->comm), "%s", p->stat.comm);
	return s;
}

static int add_member(struct checkpoint *c, struct checkpoint_member m, struct error *e)
{
	struct checkpoint_member *slot = vec_push(&c->spaces.members);

	if (!slot)
		return no_memory(e);
	*slot = m;
	return 0;
}

/*
 * One struct nsproxy for all of these namespaces, those of clocks of the next child too: what was
 * learnt of one thread that has it holds for the others (glance.h). 0: it was not met before.
 */
static int look_at_same(struct checkpoint *c, pid_t tid, uint64_t namespaces, struct error *e)
{
	struct checkpoint_member m = {};
	const struct checkpoint_member *other;

	vec_for_each (x, &c->spaces.looked->proxies)
		if (namespaces && x->address == namespaces) {
			other = space_member(c, x->tid);
			if (!other)
				return 1;
			m = *other;
			m.tid = tid;
			return add_member(c, m, e) < 0 ? e->err : 1;
		}
	return 0;
}

static int look_at_task(struct checkpoint *c, const struct checkpoint_process *p,
			const struct frozen_thread *t, struct error *e)
{
	const pid_t tid = t->tid;
	struct spaces *sp = c->spaces.looked;
	struct checkpoint_member m = {.tid = tid};
	uint64_t namespaces = glance_of(c, tid, GLANCE_NAMESPACES);
	struct space_proxy *proxy;
	bool any;
	int r = look_at_same(c, tid, namespaces, e);

	if (!r)
		r = pid_space_look_next(c, p, t, e) < 0 ? e->err : 0;
	if (r)
		return r < 0 ? r : 0;
	for (int k = 0; k < SPACE_KINDS; k++) {
		const struct checkpoint_space *s;
		uint64_t ino;

		if (!sp->own[k])
			continue;
		ino = space_number(c->proc_fd, e, "%d/task/%d/ns/%s", p->frozen->pid, tid,
				   space_kinds[k].name);
		if (!ino ||
		    (k == SPACE_TIME && timens_next_look(c, p, tid, ino, &m.next_time, e) < 0))
			return e->err;
		if (ino == sp->own[k])
			continue;
		s = space_by_number(c, space_kinds[k].flag, ino) ?: add_of(c, k, ino, p, tid, e);
		if (!s)
			return e->err;
		m.ids[k] = s->id;
	}
	any = m.next_time;
	for (int k = 0; k < SPACE_KINDS; k++)
		any |= m.ids[k] != 0;
	proxy = namespaces ? vec_push(&sp->proxies) : NULL;
	if (proxy)
		*proxy = (struct space_proxy){namespaces, tid};
	return any ? add_member(c, m, e) : 0;
}

/* Of a task that may not be looked at nothing can be learnt; that is refused elsewhere. */
static int look_at_tasks(struct checkpoint *c, struct error *e)
{
	vec_for_each (p, &c->processes)
		vec_for_each (t, &p->frozen->threads) {
			int r = p->frozen->zombie || t->zombie ? 0 : look_at_task(c, p, t, e);

			if (r < 0 && (e->code == E_PERMISSION || (r == -ESRCH && c->checking))) {
				error_clear(e);
				break;
			}
			if (r < 0)
				return r;
		}
	return 0;
}

/* A child of vfork() is made in the namespaces of its parent, and stays there. */
static int check_vfork(struct checkpoint *c, struct error *e)
{
	static const struct checkpoint_member with_root;

	vec_for_each (p, &c->processes)
		vec_for_each (t, &p->frozen->threads) {
			const struct checkpoint_member *a, *b;

			if (!t->in_vfork)
				continue;
			if (space_of_process(c, p->frozen->pid) ||
			    space_of_process(c, t->vfork_child))
				return error_object(
					e,
					error_set(e, -EOPNOTSUPP, E_TASK_VFORK,
						  "is waited for in vfork(), in another pid "
						  "namespace than the root task's"),
					"task %d", t->vfork_child);
			a = space_member(c, t->tid) ?: &with_root;
			b = space_member(c, t->vfork_child) ?: &with_root;
			if (memcmp(a->ids, b->ids, sizeof(a->ids)) != 0 ||
			    space_of_user(c, p->frozen->pid) != space_of_user(c, t->vfork_child))
				return error_object(
					e,
					error_set(e, -EBUSY, E_TASK_NAMESPACE,
						  "is waited for in vfork(), and in other "
						  "namespaces than its parent"),
					"task %d", t->vfork_child);
		}
	return 0;
}

/* Not every kernel has every kind. */
static uint64_t number_of(const struct checkpoint *c, pid_t pid, int kind)
{
	struct error unused = {};

	return space_number(c->proc_fd, &unused, "%d/ns/%s", pid, space_kinds[kind].name);
}

int spaces_prepare(struct checkpoint *c, struct error *e)
{
	struct spaces *sp = calloc(1, sizeof(*sp));

	if (!sp)
		return no_memory(e);
	c->spaces.looked = sp;
	for (int k = 0; k < SPACE_KINDS; k++) {
		if (k != SPACE_TIME)
			sp->own[k] = number_of(c, c->self, k);
		sp->fds[k] = -EBADF;
	}
	sp->own_user = space_number(c->proc_fd, e, "self/ns/user");
	sp->own_pid = sp->own_user ? space_number(c->proc_fd, e, "self/ns/pid") : 0;
	return sp->own_pid ? 0 : e->err;
}

/* Once there is anything to be looked at, we must find back. */
static int open_own(struct checkpoint *c, struct error *e)
{
	struct spaces *sp = c->spaces.looked;

	for (int k = 0; k < SPACE_KINDS; k++) {
		if (!sp->own[k] || sp->fds[k] >= 0)
			continue;
		sp->fds[k] = procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "self/ns/%s",
					 space_kinds[k].name);
		if (sp->fds[k] < 0)
			return sp->fds[k];
	}
	return 0;
}

static int refuse_one(struct checkpoint *c, size_t i, int r, struct error *e)
{
	const struct space_contents *x = c->spaces.looked->list.v[i];
	const char *kind = space_kind_name(x->msg.own);

	c->spaces.list.v[i].refused |= r < 0;
	if (r < 0 && x->tid)
		error_object(e, r, "%s namespace of task %d (%s)", kind, x->tid, x->comm);
	else if (r < 0)
		error_object(e, r, "%s:[%llu]", kind, (unsigned long long)c->spaces.list.v[i].ino);
	return checkpoint_refuse(c, r, e);
}

static int look_once(struct checkpoint *c, size_t i, struct error *e)
{
	struct space_contents *x = c->spaces.looked->list.v[i];
	int r;

	if (x->looked)
		return 0;
	x->looked = true;
	r = space_find_owner(c, i, e);
	if (r >= 0)
		r = space_look(c, i, e);
	return refuse_one(c, i, r, e);
}

static int join_all(struct checkpoint *c, struct error *e)
{
	int r = 0;

	c->spaces.looked->joined = true;
	for (size_t i = 0; i < c->spaces.list.n && r >= 0; i++)
		r = refuse_one(c, i, space_join(c, i, e), e);
	for (size_t i = 0; i < c->spaces.list.n && r >= 0; i++)
		r = refuse_one(c, i, space_check(c, i, e), e);
	return r;
}

/* It is mounted before there is any process. */
int space_check_bound(const struct checkpoint *c, const Reprise__Mount *m, struct error *e)
{
	if (m->namespace_type == CLONE_NEWTIME && timens_is_next(c, m->namespace_))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "it holds a time namespace that a task has made for its next "
				 "child");
	const struct checkpoint_space *s = space_by_id(c, m->namespace_);

	if (m->namespace_type != CLONE_NEWPID || !s ||
	    (pid_space_is_ended(c, s->id) &&
	     !c->spaces.looked->list.v[s - c->spaces.list.v]->msg.above))
		return 0;
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
			 "it holds a pid namespace that is not the root task's");
}

/* Namespaces that are mounted on a file. */
static int look_at_bound(struct checkpoint *c, struct container *ct, struct error *e)
{
	vec_for_each (m, &ct->mounts.mounts) {
		_cleanup_(close_fd) int fd = -EBADF;
		int r;

		if ((*m)->kind != MOUNT_NAMESPACE)
			continue;
		fd = open((*m)->point, O_RDONLY | O_CLOEXEC);
		r = fd < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot open it")
			   : space_of_descriptor(c, fd, &(*m)->namespace_, &(*m)->namespace_type,
						 e);
		if (r >= 0)
			r = space_check_bound(c, *m, e);
		if (r < 0)
			error_object(e, r, "mount %s", (*m)->point);
		r = checkpoint_refuse(c, r, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int spaces_survey(struct checkpoint *c, struct container *ct, struct error *e)
{
	int r = c->spaces.looked ? 0 : spaces_prepare(c, e);

	if (r < 0)
		return r;
	c->spaces.looked->own[SPACE_TIME] = number_of(c, c->freezer.root, SPACE_TIME);
	c->spaces.looked->ct = ct;
	r = user_spaces_look(c, e);
	if (r >= 0)
		r = pid_spaces_look(c, e);
	if (r >= 0)
		r = mounts_resolve_procs(c, &ct->mounts, e);
	if (r >= 0)
		r = look_at_tasks(c, e);
	if (r >= 0)
		r = look_at_bound(c, ct, e);
	if (r >= 0)
		r = mounts_check_lower(c, &ct->mounts, c->freezer.root, e);
	if (r < 0)
		return r;
	if (!c->spaces.list.n)
		r = mounts_check_queues(c, ct, e);
	if (r < 0 || !c->spaces.list.n)
		return r < 0 ? r : join_all(c, e);
	r = checkpoint_refuse(c, check_vfork(c, e), e);
	if (r >= 0)
		r = open_own(c, e);
	/* More may be met on the way. */
	for (int k = 0; k < SPACE_KINDS; k++)
		for (size_t i = 0; i < c->spaces.list.n && r >= 0; i++)
			if (c->spaces.list.v[i].flag == space_kinds[k].flag)
				r = look_once(c, i, e);
	if (r >= 0)
		r = mounts_check_queues(c, ct, e);
	if (r >= 0)
		r = timens_next_check(c, e);
	return r < 0 ? r : join_all(c, e);
}

bool space_is_own(const struct checkpoint *c, uint64_t flag, uint64_t ino)
{
	return c->spaces.looked->own[space_kind_of(flag)] == ino;
}

/* One that is not known has no process of the tree, or is none of these. */
static int other_kind(struct checkpoint *c, int fd, uint64_t flag, uint64_t ino, uint64_t *ret_id,
		      struct error *e)
{
	int r = 0;

	if (flag == CLONE_NEWPID &&
	    space_number(c->proc_fd, e, "%d/ns/pid", c->freezer.root) == ino)
		return 0;
	if (flag == CLONE_NEWPID)
		r = pid_space_of_ended(c, fd, ret_id, e);
	if (r)
		return r < 0 ? r : 0;
	return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
			 "a descriptor of a pid namespace that no process of the tree is in cannot "
			 "be saved");
}

static int put(struct checkpoint *c, size_t i, struct error *e);

/* Its owner may come with it, and stands behind it in the list then. */
static int add_found(struct checkpoint *c, int fd, uint64_t flag, uint64_t ino, struct error *e)
{
	const size_t i = c->spaces.list.n;
	int r;

	if (!space_add(c, flag, ino, fcntl(fd, F_DUPFD_CLOEXEC, 3), e))
		return e->err ?: error_errno(e, -errno, E_SYSTEM, "cannot duplicate it");
	r = open_own(c, e);
	if (r >= 0)
		r = look_once(c, i, e);
	if (r >= 0 && c->spaces.looked->joined)
		r = space_join(c, i, e);
	if (r >= 0 && c->spaces.looked->joined)
		r = space_check(c, i, e);
	if (r >= 0 && c->spaces.looked->saved)
		r = put(c, i, e);
	return r;
}

int space_of_descriptor(struct checkpoint *c, int fd, uint64_t *ret_id, uint64_t *ret_flag,
			struct error *e)
{
	int type = ioctl(fd, NS_GET_NSTYPE), kind;
	const struct checkpoint_space *s;
	struct stat st;

	if (type < 0 || fstat(fd, &st) < 0)
		return error_errno(e, -errno, E_FILE_KIND, "it is of no known kind");
	*ret_id = 0;
	*ret_flag = (uint64_t)type;
	kind = space_kind_of((uint64_t)type);
	s = type == CLONE_NEWPID ? space_by_number(c, CLONE_NEWPID, st.st_ino) : NULL;
	if (s) {
		*ret_id = s->id;
		return 0;
	}
	if (type == CLONE_NEWUSER)
		return user_space_get(c, fcntl(fd, F_DUPFD_CLOEXEC, 3), ret_id, e);
	if (kind < 0)
		return other_kind(c, fd, (uint64_t)type, st.st_ino, ret_id, e);
	if (c->spaces.looked->own[kind] == st.st_ino)
		return 0;
	s = space_by_number(c, (uint64_t)type, st.st_ino);
	if (!s && add_found(c, fd, (uint64_t)type, st.st_ino, e) < 0)
		return e->err;
	s = s ?: space_by_number(c, (uint64_t)type, st.st_ino);
	*ret_id = s->id;
	return 0;
}

static int put(struct checkpoint *c, size_t i, struct error *e)
{
	struct space_contents *x = c->spaces.looked->list.v[i];
	int r = c->checking ? 0 : container_add_layers(c, c->spaces.looked->ct, &x->mounts, e);

	return r < 0 ? r
		     : checkpoint_put(c, RECORD_NAMESPACE, c->spaces.list.v[i].id, &x->msg.base, e);
}

int spaces_checkpoint(struct checkpoint *c, struct error *e)
{
	int r = user_spaces_checkpoint(c, e);

	if (r >= 0)
		r = pid_spaces_checkpoint(c, e);

	for (int k = 0; k < SPACE_KINDS; k++)
		for (size_t i = 0; i < c->spaces.list.n && r >= 0; i++)
			if (c->spaces.list.v[i].flag == space_kinds[k].flag)
				r = put(c, i, e);
	c->spaces.looked->saved = true;
	return r;
}

void spaces_end(struct checkpoint *c)
{
	struct spaces *sp = c->spaces.looked;

	vec_for_each (s, &c->spaces.list) {
		close_fd(&s->ns);
		close_fd(&s->root);
		vec_free(&s->mounts);
		vec_free(&s->brought);
	}
	vec_free(&c->spaces.list);
	vec_free(&c->spaces.members);
	vec_free(&c->spaces.nested);
	vec_free(&c->spaces.users);
	if (!sp)
		return;
	vec_for_each (x, &sp->list) {
		mounts_survey_free(&(*x)->mounts);
		resident_end(&(*x)->resident);
		network_free(&(*x)->network);
		if ((*x)->settings)
			reprise__container__free_unpacked((*x)->settings, NULL);
		free(*x);
	}
	vec_free(&sp->list);
	vec_for_each (m, &sp->mounts)
		close_fd(&m->fd);
	vec_free(&sp->mounts);
	vec_for_each (d, &sp->detached)
		close_fd(&d->root);
	vec_free(&sp->detached);
	vec_free(&sp->procs);
	vec_free(&sp->proxies);
	for (int k = 0; k < SPACE_KINDS; k++)
		close_fd(&sp->fds[k]);
	scratch_free(&sp->s);
	free(sp);
	c->spaces.looked = NULL;
}
