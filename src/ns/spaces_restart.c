/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces of tasks that are not the root's, made again. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "model/pids.h"
#include "ns/mounts_detached.h"
#include "ns/mounts_late.h"
#include "ns/net_pairs.h"
#include "ns/propagation.h"
#include "ns/resident.h"
#include "ns/settings.h"
#include "ns/spaces.h"
#include "ns/timens.h"

struct restart_space *space_made(struct restart *r, uint64_t id)
{
	vec_for_each (s, &r->spaces.list)
		if (s->id == id)
			return s;
	return NULL;
}

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

/* ---- validation ---- */

static int validate_mounts(const struct restart *r, const Reprise__Container *msg, struct error *e)
{
	for (size_t i = 0; i < msg->n_mounts; i++) {
		const Reprise__Mount *m = msg->mounts[i];

		if ((m->kind == MOUNT_OVERLAY && !m->inside) || m->kind == MOUNT_CGROUP)
			return invalid(e, "a mount that a task cannot have for itself");
		if (m->kind == MOUNT_NAMESPACE && space_validate_bound(r, m, e) < 0)
			return -EBADMSG;
		if (m->layer && !restart_find(r, RECORD_LAYER, m->layer))
			return invalid(e, "a layer is not in the image");
	}
	return mounts_validate(msg, e);
}

static int validate_within(const struct restart *r, size_t n, uint64_t *const ids, bool with_mounts,
			   struct error *e)
{
	uint64_t seen = 0;

	for (size_t i = 0; i < n; i++) {
		const Reprise__Container *msg = restart_find(r, RECORD_NAMESPACE, ids[i]);

		if (!msg || (seen & msg->own) || msg->own == CLONE_NEWPID ||
		    msg->own == CLONE_NEWUSER || (!with_mounts && msg->own == CLONE_NEWNS))
			return invalid(e, "an impossible set of namespaces");
		seen |= msg->own;
	}
	return 0;
}

static int validate_one(const struct restart *r, const Reprise__Container *msg, struct error *e)
{
	const bool same = msg->own == CLONE_NEWPID || msg->own == CLONE_NEWUSER;
	int res;

	if (!space_kind_name(msg->own))
		return invalid(e, "a namespace of unknown kind");
	if (strlen(msg->nodename) > 64 || strlen(msg->domainname) > 64)
		return invalid(e, "a host name that is too long");
	if (msg->own != CLONE_NEWNS && (msg->n_mounts || msg->n_unmounted || msg->n_within))
		return invalid(e, "mounts in a namespace of another kind");
	if (timens_validate(r, msg, e) < 0)
		return -EBADMSG;
	if (msg->own == CLONE_NEWNET && !msg->network)
		return invalid(e, "a network namespace without a network");
	if (restart_space_missing(r, msg->above, same ? msg->own : CLONE_NEWNS))
		return invalid(e, "a namespace above another is not there");
	res = user_space_validate(r, msg, e);
	if (res >= 0)
		res = validate_within(r, msg->n_within, msg->within, false, e);
	if (res >= 0)
		res = validate_mounts(r, msg, e);
	if (res >= 0)
		res = mounts_validate_late(r, msg, e);
	if (res >= 0)
		res = network_validate(msg, e);
	return res < 0 ? res : settings_validate(msg, e);
}

int spaces_validate(const struct restart *r, struct error *e)
{
	const Reprise__Container *msg;
	int res = 0;

	for (size_t i = 0; (msg = restart_nth(r, RECORD_NAMESPACE, i, NULL)) && res >= 0; i++)
		res = validate_one(r, msg, e);
	if (res >= 0)
		res = net_pairs_validate(r, e);
	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks)
			if (res >= 0)
				res = validate_within(r, t->msg->n_namespaces, t->msg->namespaces,
						      true, e);
	vec_for_each (p, &r->processes)
		if (res >= 0)
			res = timens_next_validate(r, p, e);
	if (res >= 0)
		res = mounts_validate_detached(r, e);
	/* The root is where all begin. */
	if (res >= 0 && r->processes.v[0].tasks.n && r->processes.v[0].tasks.v[0].msg->n_namespaces)
		res = invalid(e, "the root is not in its own namespaces");
	return res;
}

/* ---- making them ---- */

/* That of control groups its stub has made itself, in the groups of the container. */
static int open_roots(struct restart *r, struct error *e)
{
	char stub[24];

	snprintf(stub, sizeof(stub), "%d", r->processes.v[0].pid);
	for (int k = 0; k < SPACE_KINDS; k++) {
		struct restart_space *s = &r->spaces.root[k];
		const char *who = space_kinds[k].flag == CLONE_NEWCGROUP ? stub : "thread-self";
		struct error unused = {};

		/* Not every kernel has every kind. */
		s->ino = space_number(r->proc_fd, &unused, "%s/ns/%s", who, space_kinds[k].name);
		s->flag = space_kinds[k].flag;
		s->ns = -EBADF;
		if (!s->ino)
			continue;
		s->ns = procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "%s/ns/%s", who,
				    space_kinds[k].name);
		if (s->ns < 0)
			return s->ns;
	}
	return 0;
}

/* The root's own mounts are there; files on them hold namespaces from now on. */
static int bind_all(struct restart *r, const Reprise__Container *msg, struct error *e)
{
	for (size_t i = 0; msg && i < msg->n_mounts; i++) {
		const Reprise__Mount *m = msg->mounts[i];
		_cleanup_(close_fd) int fd = -EBADF;
		int res;

		if (m->kind != MOUNT_NAMESPACE)
			continue;
		res = fd = space_open(r, m->namespace_, m->namespace_type, e);
		if (res >= 0)
			res = mounts_bind_namespace(r->proc_fd, fd, m->point, e);
		if (res >= 0)
			res = propagation_restart_one(msg, i, e);
		if (res < 0)
			return error_object(e, res, "mount %s", m->point);
	}
	return 0;
}

int space_validate_use(const struct restart *r, uint64_t id, uint64_t flag, struct error *e)
{
	if (!space_kind_name(flag) || (id && restart_space_missing(r, id, flag)))
		return invalid(e, "a namespace that is not there is held");
	return 0;
}

int space_validate_bound(const struct restart *r, const Reprise__Mount *m, struct error *e)
{
	const Reprise__Container *msg = restart_find(r, RECORD_NAMESPACE, m->namespace_);

	if (m->namespace_ && m->namespace_type == CLONE_NEWPID &&
	    !(msg && msg->ended && !msg->above))
		return invalid(e, "a pid namespace is mounted that is not there yet");
	return space_validate_use(r, m->namespace_, m->namespace_type, e);
}

int space_open(struct restart *r, uint64_t id, uint64_t flag, struct error *e)
{
	const struct restart_space *s = id ? space_made(r, id) : NULL;
	const struct restart_process *init =
		s && flag == CLONE_NEWPID ? pid_space_init(r, id) : NULL;

	if (init && init->pid > 0)
		return procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/pid", init->pid);
	if (id && (!s || s->ns < 0))
		return invalid(e, "a namespace is held that is not made yet");
	/* The first process may go into one below that of the container, in which we are. */
	if (!id && flag == CLONE_NEWUSER)
		return procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "thread-self/ns/user");
	if (!id)
		return procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/%s",
				   r->processes.v[0].pid, space_kind_name(flag));
	return procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "thread-self/fd/%d", s->ns);
}

static int make_all(struct restart *r, bool mounts, struct error *e)
{
	const Reprise__Container *msg;
	uint64_t id;
	int res = 0;

	for (size_t i = 0; res >= 0 && (msg = restart_nth(r, RECORD_NAMESPACE, i, &id)); i++) {
		struct restart_space *s;

		if ((msg->own == CLONE_NEWNS) != mounts)
			continue;
		s = vec_push(&r->spaces.list);
		if (!s)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a namespace");
		*s = (struct restart_space){
			.id = id, .flag = msg->own, .ns = -EBADF, .root = -EBADF};
		/* These begin with their first process, or are made by a task. */
		if (msg->own == CLONE_NEWPID ? msg->ended && !msg->above
					     : !timens_next_makes(r, id))
			res = space_make(r, s, msg, e);
	}
	return res;
}

int space_go(struct restart *r, struct restart_task *t, const struct restart_space *s,
	     struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	int remote, call, res = restart_send_fds(r, t, &s->ns, 1, &remote, e);

	if (res < 0)
		return res;
	call = batch_call(&b, SYS_setns, VAL(remote), VAL(s->flag));
	batch_call(&b, SYS_close, VAL(remote));
	res = agent_run(t->process->agent, t->tid, NULL, &b, e);
	if (res >= 0 && batch_result(&b, call) < 0)
		res = error_errno(e, (int)batch_result(&b, call), E_NAMESPACE,
				  "task %d cannot enter its %s namespace", t->vtid,
				  space_kind_name(s->flag));
	return res;
}

/* Its stub has ours until now: who makes a time namespace is not in it. */
static int make_root_clocks(struct restart *r, const Reprise__Container *root, struct error *e)
{
	struct restart_space *s = &r->spaces.root[SPACE_TIME];
	struct stat st;
	int ns = timens_restart(r, root, e);

	if (ns < 0)
		return ns;
	if (s->ino)
		close_fd(&s->ns);
	if (fstat(ns, &st) < 0) {
		s->ino = 0;
		close_fd(&ns);
		return error_errno(e, -errno, E_SYSTEM, "fstat");
	}
	*s = (struct restart_space){
		.flag = CLONE_NEWTIME, .ino = st.st_ino, .ns = ns, .root = -EBADF};
	return space_go(r, &r->processes.v[0].tasks.v[0], s, e);
}

int spaces_restart(struct restart *r, const Reprise__Container *root,
		   const struct cgroups_made *cgroups, struct error *e)
{
	int res = restart_nth(r, RECORD_NAMESPACE, 0, NULL) ? open_roots(r, e) : 0;

	r->spaces.cgroups = cgroups;
	if (res >= 0 && root && root->own & CLONE_NEWTIME)
		res = make_root_clocks(r, root, e);
	if (res >= 0)
		res = make_all(r, false, e);
	if (res >= 0)
		res = bind_all(r, root, e);
	if (res >= 0)
		res = make_all(r, true, e);
	if (res >= 0)
		res = mounts_restart_detached(r, e);
	/* The root is where it belongs. */
	return res < 0 || !r->processes.v[0].tasks.n
		       ? res
		       : timens_next_make(r, r->processes.v[0].tasks.v, false, e);
}

/* ---- mounts that wait for processes ---- */

struct late {
	const Reprise__Container *msg;
	size_t i;
	int ns;
};

static int make_late(void *arg, struct error *e)
{
	const struct late *l = arg;

	return mounts_restart_late(l->msg, l->i, l->ns, e);
}

/* By a process in the pid namespace that the proc shows. */
static int mount_late(struct restart *r, const struct late *l, uint64_t space, struct error *e)
{
	_cleanup_(resident_end) struct resident res = RESIDENT_INIT;
	const struct restart_process *init = pid_space_init(r, space);
	_cleanup_(close_fd) int pidns =
		procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e, "%d/ns/pid", init ? init->pid : 0);
	const struct resident_begin how = {
		.proc_fd = r->proc_fd, .pidns = pidns, .first = make_late, .arg = (void *)l};

	return pidns < 0 ? pidns : resident_begin(&res, &how, e);
}

static int mount_all_late(struct restart *r, const Reprise__Container *msg, int ns, struct error *e)
{
	_cleanup_(free_ptr) bool *late = mounts_find_late(msg->n_mounts, msg->mounts, e);
	uint64_t space = 0;
	int res = late ? 0 : e->err;

	for (size_t i = 0; i < msg->n_mounts && res >= 0; i++) {
		const struct late l = {msg, i, ns};

		if (!late[i])
			continue;
		/* what is on one, or bound from it, stands behind it, and may be made by anyone */
		space = msg->mounts[i]->pid_namespace ?: space;
		res = mount_late(r, &l, space, e);
	}
	return res;
}

int spaces_restart_late(struct restart *r, struct error *e)
{
	const Reprise__Container *root = restart_nth(r, RECORD_CONTAINER, 0, NULL);
	int res = root ? mount_all_late(r, root, r->spaces.root[SPACE_MNT].ns, e) : 0;

	vec_for_each (s, &r->spaces.list)
		if (res >= 0 && s->flag == CLONE_NEWNS)
			res = mount_all_late(r, restart_find(r, RECORD_NAMESPACE, s->id), s->ns, e);
	vec_for_each (s, &r->spaces.list)
		if (res >= 0 && s->flag == CLONE_NEWUSER)
			res = user_space_settle(r, s->ns, restart_find(r, RECORD_NAMESPACE, s->id),
						e);
	return res;
}

void spaces_restart_end(struct restart *r)
{
	vec_for_each (s, &r->spaces.list) {
		close_fd(&s->ns);
		close_fd(&s->root);
	}
	for (int k = 0; k < SPACE_KINDS; k++)
		if (r->spaces.root[k].ino)
			close_fd(&r->spaces.root[k].ns);
	vec_for_each (p, &r->spaces.places)
		close_fd(&p->fd);
	vec_free(&r->spaces.places);
	vec_for_each (d, &r->spaces.detached)
		close_fd(&d->fd);
	vec_free(&r->spaces.detached);
	vec_free(&r->spaces.list);
	net_pairs_end(r);
}

/* ---- tasks ---- */

static const struct restart_space *wanted(struct restart *r, const struct restart_task *t, int kind)
{
	for (size_t i = 0; i < t->msg->n_namespaces; i++) {
		const struct restart_space *s = space_made(r, t->msg->namespaces[i]);

		if (s && s->flag == space_kinds[kind].flag)
			return s;
	}
	return &r->spaces.root[kind];
}

static int enter_all(struct restart *r, struct restart_task *t, struct error *e)
{
	for (int k = 0; r->spaces.list.n && !t->msg->is_zombie && k < SPACE_KINDS; k++) {
		const struct restart_space *s = wanted(r, t, k);
		uint64_t is;
		int res;

		if (!s->ino)
			continue;
		is = space_number(r->proc_fd, e, "%d/task/%d/ns/%s", t->process->pid, t->tid,
				  space_kinds[k].name);
		if (!is)
			return e->err;
		res = is == s->ino ? 0 : space_go(r, t, s, e);
		if (res < 0)
			return res;
	}
	return 0;
}

/* What a task makes is there when that task is. */
int spaces_enter(struct restart *r, struct restart_task *t, struct error *e)
{
	int res = enter_all(r, t, e);

	return res < 0 ? res : timens_next_make(r, t, false, e);
}

int spaces_enter_late(struct restart *r, struct error *e)
{
	if (pid_spaces_make_ended_late(r, e) < 0)
		return e->err;
	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks) {
			int res = timens_next_make(r, t, true, e);

			if (res < 0)
				return res;
		}
	vec_for_each (s, &r->spaces.list) {
		if (!timens_next_makes(r, s->id))
			continue;
		vec_for_each (p, &r->processes) {
			struct restart_task *first = p->tasks.v;
			bool inside =
				p->tasks.n && restart_space_of(r, first, CLONE_NEWTIME) == s->id;
			int res = inside && p->pid > 0 ? enter_all(r, first, e) : 0;

			if (res < 0)
				return res;
		}
	}
	return 0;
}
