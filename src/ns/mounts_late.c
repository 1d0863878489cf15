/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/mounts_late.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "ns/mounts_early.h"
#include "ns/spaces.h"

/* ---- checkpoint ---- */

static int refuse(struct error *e, const char *what)
{
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT, "%s", what);
}

uint64_t space_of_proc(const struct checkpoint *c, dev_t dev)
{
	vec_for_each (p, &c->spaces.looked->procs)
		if (p->dev == dev)
			return p->space;
	return 0;
}

static int note_shown(struct mounts_survey *sv, const struct mount_line *m, uint64_t number,
		      struct error *e)
{
	struct mount_shown *slot = vec_push(&sv->shown);

	if (!slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of mounts");
	*slot = (struct mount_shown){m->id, m->dev, number};
	return 0;
}

/* What is known to be shown by what has that device. */
static uint64_t known_shown(const struct mounts_survey *sv, dev_t dev)
{
	if (sv->c)
		return space_of_proc(sv->c, dev);
	vec_for_each (x, &sv->shown)
		if (x->dev == dev)
			return x->number;
	return 0;
}

static int note_proc(struct checkpoint *c, dev_t dev, uint64_t space, struct error *e)
{
	struct space_proc *slot = vec_push(&c->spaces.looked->procs);

	if (!slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of mounts");
	*slot = (struct space_proc){dev, space};
	return 0;
}

static bool is_outside(const struct mounts_survey *sv, dev_t dev)
{
	vec_for_each (m, &sv->ours)
		if (m->dev == dev)
			return true;
	return false;
}

/* By its process 1. Where this may not be seen it is not of the tree. */
static int shown_by(struct mounts_survey *sv, int proc_fd, pid_t pid, const struct mount_line *m,
		    int at, uint64_t *ret, struct error *e)
{
	_cleanup_(free_ptr) char *theirs = NULL, *shown = NULL;
	const struct checkpoint_space *s = NULL;
	uint64_t number = 0;
	int r;

	r = procfs_readlink(at, &shown, NULL, "1/ns/pid");
	/* where it is only hidden another option says so */
	if (r == -ESRCH && !is_outside(sv, m->dev) && !strstr(m->super, "hidepid"))
		return refuse(e, "it shows a pid namespace that has ended");
	if (r < 0 || procfs_readlink(proc_fd, &theirs, NULL, "%d/ns/pid", pid) < 0 ||
	    !strcmp(theirs, shown))
		return 0;
	if (strchr(shown, '['))
		number = strtoull(strchr(shown, '[') + 1, NULL, 10);
	/* Whose that is turns out when the tree is known. */
	if (!sv->nested) {
		*ret = number;
		return note_shown(sv, m, number, e);
	}
	if (sv->c)
		s = space_by_number(sv->c, CLONE_NEWPID, number);
	if (!s)
		return refuse(e, "it shows another pid namespace than the root task's, of which "
				 "no process with this mount namespace is in the tree");
	*ret = s->id;
	return note_proc(sv->c, m->dev, s->id, e);
}

int mounts_look_proc(struct mounts_survey *sv, int proc_fd, pid_t pid, const struct mount_line *m,
		     uint64_t *ret, struct error *e)
{
	_cleanup_(close_fd) int at = -EBADF;
	struct stat st;

	*ret = known_shown(sv, m->dev);
	if (strcmp(m->type, "proc"))
		return 0;
	at = mounts_open(sv, proc_fd, pid, m, e);
	if (at < 0)
		return at;
	if (fstat(at, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat");
	if (st.st_dev != m->dev && sv->c && (*ret || !is_outside(sv, m->dev)))
		return refuse(e, "which pid namespace it shows is hidden by another mount");
	if (st.st_dev != m->dev)
		return sv->nested || is_outside(sv, m->dev) ? 0 : note_shown(sv, m, *ret, e);
	if (*ret && !sv->nested)
		return note_shown(sv, m, *ret, e);
	/* of a part there is no process 1 */
	if (*ret || strcmp(m->root, "/"))
		return 0;
	return shown_by(sv, proc_fd, pid, m, at, ret, e);
}

static int resolve(struct checkpoint *c, const struct mount_shown *x, Reprise__Mount *m,
		   struct error *e)
{
	const struct checkpoint_space *s = space_by_number(c, CLONE_NEWPID, x->number);
	int r = 0;

	if (!x->number && c->spaces.nested.n)
		r = refuse(e, "which pid namespace it shows is hidden by another mount");
	else if (x->number && !s)
		r = refuse(e, "it shows another pid namespace than the root task's; save the "
			      "first process of that one instead");
	if (r < 0)
		return error_object(e, r, "mount %s (%s)", m->point, m->type);
	if (!s)
		return 0;
	/* one that is bound from it comes with it */
	if (m->pid_namespace)
		m->pid_namespace = s->id;
	return space_of_proc(c, x->dev) ? 0 : note_proc(c, x->dev, s->id, e);
}

int mounts_resolve_procs(struct checkpoint *c, struct mounts_survey *sv, struct error *e)
{
	int r = 0;

	vec_for_each (x, &sv->shown)
		vec_for_each (m, &sv->mounts)
			if (r >= 0 && (*m)->id == x->id)
				r = checkpoint_refuse(c, resolve(c, x, *m, e), e);
	return r;
}

bool mounts_is_on_late(const struct mounts_survey *sv, const struct mount_line *m)
{
	for (size_t i = sv->mounts.n; i-- > 0;)
		if (sv->mounts.v[i]->id == m->parent) {
			const struct mount_line parent = {.parent = sv->mounts.v[i]->parent};

			return sv->mounts.v[i]->pid_namespace || mounts_is_on_late(sv, &parent);
		}
	return false;
}

static const struct mount_line *line_of(const struct mounts_survey *sv, int id)
{
	vec_for_each (m, &sv->theirs)
		if (m->id == id)
			return m;
	return NULL;
}

static int check_one(const struct mounts_survey *sv, const Reprise__Mount *m, struct error *e)
{
	const struct mount_line *on = line_of(sv, m->parent);

	if (m->kind != MOUNT_FRESH && m->kind != MOUNT_BIND && m->kind != MOUNT_EXTERNAL)
		return refuse(e, "it lies on a proc of another pid namespace than the root task's");
	/* where it is found is another namespace than the root's, or not there yet */
	if (m->kind == MOUNT_EXTERNAL && sv->above)
		return refuse(e, "it lies on a proc of another pid namespace than the root "
				 "task's, in a copy of another mount namespace");
	if (m->hidden)
		return refuse(e,
			      "it is hidden by another one, and has to do with a proc of another "
			      "pid namespace than the root task's");
	if (m->shared || m->peer || m->master || *m->root_peer || *m->root_master ||
	    m->unbindable || (on && on->shared))
		return refuse(e, "it has to do with a proc of another pid namespace than the root "
				 "task's, and shares its mounts");
	return 0;
}

int mounts_check_late(const struct mounts_survey *sv, struct error *e)
{
	_cleanup_(free_ptr) bool *late = mounts_find_late(sv->mounts.n, sv->mounts.v, e);

	if (!late)
		return e->err;
	for (size_t i = 0; i < sv->mounts.n; i++) {
		const Reprise__Mount *m = sv->mounts.v[i];

		if (late[i] && check_one(sv, m, e) < 0)
			return error_object(e, e->err, "mount %s (%s)", m->point, m->type);
	}
	return 0;
}

/* ---- restart ---- */

static int compare_ids(const void *a, const void *b)
{
	const struct mount_place *x = a, *y = b;

	return x->id != y->id ? (x->id > y->id) - (x->id < y->id) : (x->i > y->i) - (x->i < y->i);
}

struct mount_place *mounts_places(size_t n, Reprise__Mount *const *mounts)
{
	struct mount_place *places = calloc(n + 1, sizeof(*places));

	for (size_t i = 0; places && i < n; i++)
		places[i] = (struct mount_place){mounts[i]->id, i};
	if (places)
		qsort(places, n, sizeof(*places), compare_ids);
	return places;
}

static int compare_id(const void *key, const void *place)
{
	const int id = *(const int *)key, other = ((const struct mount_place *)place)->id;

	return (id > other) - (id < other);
}

size_t mounts_place(const struct mount_place *places, size_t n, int id)
{
	const struct mount_place *found = bsearch(&id, places, n, sizeof(*places), compare_id);

	return found ? found->i : SIZE_MAX;
}

static bool is_late(const bool *late, size_t i, size_t other)
{
	return other < i && late[other];
}

bool *mounts_find_late(size_t n, Reprise__Mount *const *mounts, struct error *e)
{
	_cleanup_(free_ptr) struct mount_place *places = mounts_places(n, mounts);
	bool *late = places ? calloc(n + 1, sizeof(*late)) : NULL;

	if (!late)
		error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of mounts");
	for (size_t i = 0; late && i < n; i++) {
		const Reprise__Mount *m = mounts[i];

		late[i] =
			m->pid_namespace || is_late(late, i, mounts_place(places, n, m->parent)) ||
			(m->kind == MOUNT_BIND && is_late(late, i, mounts_place(places, n, m->of)));
	}
	return late;
}

int mounts_validate_late(const struct restart *r, const Reprise__Container *msg, struct error *e)
{
	_cleanup_(free_ptr) bool *late = mounts_find_late(msg->n_mounts, msg->mounts, e);

	if (!late)
		return e->err;
	for (size_t i = 0; i < msg->n_mounts; i++) {
		const Reprise__Mount *m = msg->mounts[i];
		bool fresh = m->kind == MOUNT_FRESH && m->pid_namespace && !strcmp(m->type, "proc");

		if (restart_space_missing(r, m->pid_namespace, CLONE_NEWPID) ||
		    (late[i] && !fresh && m->kind != MOUNT_BIND && m->kind != MOUNT_EXTERNAL) ||
		    (late[i] && m->kind == MOUNT_BIND && m->pid_namespace))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "an impossible mount of a proc");
	}
	return 0;
}

int mounts_restart_late(const Reprise__Container *msg, size_t i, int ns, struct error *e)
{
	const Reprise__Mount *m = msg->mounts[i];
	_cleanup_(close_fd) int from = -EBADF, proc = -EBADF;
	const struct mounts_place place = {
		.external_fd = &from, .fresh_fd = &proc, .one_by_one = true};
	int r;

	/*
	 * In a mount namespace that belongs to a user namespace a proc is mounted only where
	 * another one can be seen in full (mount_too_revealing()): it comes from here.
	 */
	if (m->kind == MOUNT_FRESH && msg->user_namespace)
		proc = mounts_new(m);

	if (m->kind == MOUNT_EXTERNAL) {
		from = open_tree(AT_FDCWD, m->external, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (from < 0)
			return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot bind %s",
					   m->external);
	}
	if (setns(ns, CLONE_NEWNS) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot enter the mount namespace");
	r = mounts_restart_one(msg, i, &place, e);
	if (r >= 0 && mount(NULL, m->point, NULL, MS_PRIVATE, NULL) < 0)
		r = error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot make it private");
	return r < 0 ? error_object(e, r, "mount %s (%s)", m->point, m->type) : 0;
}
