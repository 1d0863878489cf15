/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/mounts_late.h"
#include "ns/propagation.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "core/procfs.h"

/* ---- checkpoint ---- */

/*
 * Only a mount that shows no more can join (do_set_group()). Members of a group that have nothing
 * in common never exchange a mount (propagate_one()): they need not be in one.
 */
static const struct mount_line *widest(const struct mount_table *t, int group,
				       const struct mount_line *of)
{
	const struct mount_line *best = NULL;

	if (!group)
		return NULL;
	vec_for_each (m, t)
		if (m->shared == group && m->dev == of->dev && mount_is_below(of->root, m->root) &&
		    (!best ||
		     (mount_is_below(best->root, m->root) && strcmp(best->root, m->root) != 0)))
			best = m;
	return best;
}

static bool has_group(const struct mount_table *t, int group)
{
	vec_for_each (m, t)
		if (group && m->shared == group)
			return true;
	return false;
}

bool propagation_matters(const struct mounts_survey *sv, const struct mount_line *m)
{
	return m->shared || m->unbindable ||
	       (sv->nested &&
		(has_group(&sv->ours, m->master) || has_group(&sv->theirs, m->master)));
}

/* They are found by their paths again. */
static int check_seen(const struct mounts_survey *sv, int proc_fd, pid_t pid,
		      const struct mount_line *m, bool of_root, struct error *e)
{
	_cleanup_(free_ptr) char *path = NULL;
	int is;

	if (asprintf(&path, "%d/root%s", of_root ? sv->above : pid, m->point) < 0) {
		path = NULL;
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	}
	is = of_root && !sv->above ? mount_id_at(AT_FDCWD, m->point, 0)
				   : mount_id_at(proc_fd, path, 0);
	if (is == m->id)
		return 0;
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
			 "mount %s, which shares its mounts with others, is hidden by another one",
			 m->point);
}

/* Whom it joins: a mount of the root's namespace, or the first of its own. NULL: nobody. */
struct joined {
	const struct mount_line *mount;
	bool of_root;
};

static int find_group(const struct mounts_survey *sv, const struct mount_line *m, int group,
		      struct joined *ret, struct error *e)
{
	const bool root = sv->nested && has_group(&sv->ours, group);

	*ret = (struct joined){widest(root ? &sv->ours : &sv->theirs, group, m), root};
	if (ret->mount == m)
		ret->mount = NULL;
	else if (!ret->mount && (root || has_group(&sv->theirs, group)))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "mount %s shares its mounts with one that shows another part of "
				 "the file system",
				 m->point);
	return 0;
}

int propagation_look(const struct mounts_survey *sv, int proc_fd, pid_t pid,
		     const struct mount_line *m, Reprise__Mount *msg, struct error *e)
{
	struct joined peer = {}, master = {};
	int r = find_group(sv, m, m->shared, &peer, e);

	msg->shared = m->shared != 0;
	msg->unbindable = m->unbindable;
	if (r >= 0 && !peer.mount && m->master)
		r = find_group(sv, m, m->master, &master, e);
	if (r < 0)
		return r;
	if (peer.mount && peer.of_root)
		msg->root_peer = peer.mount->point;
	else if (peer.mount)
		msg->peer = peer.mount->id;
	if (master.mount && master.of_root)
		msg->root_master = master.mount->point;
	else if (master.mount)
		msg->master = master.mount->id;
	if (!peer.mount)
		peer = master;
	if (!peer.mount)
		return 0;
	r = msg->hidden ? 0 : check_seen(sv, proc_fd, pid, m, false, e);
	if (r >= 0 && (peer.of_root || !mount_hidden_of(&sv->hidden, peer.mount->id)))
		r = check_seen(sv, proc_fd, pid, peer.mount, peer.of_root, e);
	return r;
}

/* ---- restart ---- */

static int invalid(struct error *e)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a mount joins others in an impossible way");
}

static bool is_there(const Reprise__Container *msg, int id)
{
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (msg->mounts[i]->id == id)
			return true;
	return !id;
}

int propagation_validate(const Reprise__Container *msg, struct error *e)
{
	for (size_t i = 0; i < msg->n_mounts; i++) {
		const Reprise__Mount *m = msg->mounts[i];
		int joins = !!m->peer + !!m->master + !!*m->root_peer + !!*m->root_master;

		if (joins > 1 || m->peer == m->id || m->master == m->id ||
		    !is_there(msg, m->peer) || !is_there(msg, m->master) ||
		    (*m->root_peer && *m->root_peer != '/') ||
		    (*m->root_master && *m->root_master != '/'))
			return invalid(e);
	}
	return 0;
}

static int open_mount(const char *point, struct error *e)
{
	int fd = open(point, O_PATH | O_CLOEXEC);

	return fd < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot open mount %s", point)
		      : fd;
}

int propagation_open_root(const Reprise__Container *msg, int *fds, struct error *e)
{
	for (size_t i = 0; i < msg->n_mounts; i++) {
		const Reprise__Mount *m = msg->mounts[i];
		const char *point = *m->root_peer ? m->root_peer : m->root_master;

		fds[i] = *point ? open_mount(point, e) : -1;
		if (*point && fds[i] < 0)
			return fds[i];
	}
	return 0;
}

/* No path may lead there. */
static int open_one(const Reprise__Container *msg, size_t i, const int *made, struct error *e)
{
	int fd;

	if (!made || made[i] < 0)
		return open_mount(msg->mounts[i]->point, e);
	fd = fcntl(made[i], F_DUPFD_CLOEXEC, 3);
	return fd < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot open it") : fd;
}

static int change(int fd, unsigned long how, struct error *e)
{
	struct mount_attr attr = {.propagation = how};

	return mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0
		       ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot set its propagation")
		       : 0;
}

/* As a peer it has the master of the others, too; a slave was a peer before. */
static int join(const Reprise__Mount *m, int fd, int with, bool as_slave, struct error *e)
{
	int r;

	if (move_mount(with, "", fd, "",
		       MOVE_MOUNT_SET_GROUP | MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) <
	    0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT,
				   "cannot share its mounts with others");
	if (!as_slave)
		return 0;
	r = change(fd, MS_SLAVE, e);
	return r >= 0 && m->shared ? change(fd, MS_SHARED, e) : r;
}

static int set_one(const Reprise__Container *msg, size_t i, const int *root_fds, const int *made,
		   struct error *e)
{
	const Reprise__Mount *m = msg->mounts[i];
	_cleanup_(close_fd) int own = -EBADF, fd = -EBADF;
	int with = root_fds ? root_fds[i] : -1;

	if (!m->peer && !m->master && !*m->root_peer && !*m->root_master && !m->unbindable &&
	    !m->shared)
		return 0;
	fd = open_one(msg, i, made, e);
	if (fd < 0)
		return fd;
	for (size_t j = 0; j < msg->n_mounts && (m->peer || m->master) && own < 0; j++)
		if (msg->mounts[j]->id == (m->peer ?: m->master))
			with = own = open_one(msg, j, made, e);
	if (m->peer || m->master || *m->root_peer || *m->root_master)
		return with < 0 ? (e->err ?: invalid(e))
				: join(m, fd, with, m->master || *m->root_master, e);
	return change(fd, m->unbindable ? MS_UNBINDABLE : MS_SHARED, e);
}

/* Whoever is joined comes first. */
static bool is_ready(const Reprise__Container *msg, const Reprise__Mount *m, const bool *done)
{
	for (size_t j = 0; j < msg->n_mounts; j++)
		if (msg->mounts[j]->id == (m->peer ?: m->master))
			return done[j];
	return true;
}

/* A namespace is mounted by whoever knows it, perhaps later. */
int propagation_restart_one(const Reprise__Container *msg, size_t i, struct error *e)
{
	return set_one(msg, i, NULL, NULL, e);
}

int propagation_restart(const Reprise__Container *msg, const int *root_fds, const int *made,
			bool namespaces, struct error *e)
{
	/* Those that come late share nothing. */
	_cleanup_(free_ptr) bool *done = mounts_find_late(msg->n_mounts, msg->mounts, e);
	size_t left = msg->n_mounts, before;

	if (!done)
		return e->err;
	for (size_t i = 0; i < msg->n_mounts; i++)
		left -= done[i];
	before = left + 1;
	while (left && left < before) {
		before = left;
		for (size_t i = 0; i < msg->n_mounts; i++) {
			int r;

			if (done[i] || !is_ready(msg, msg->mounts[i], done))
				continue;
			r = msg->mounts[i]->kind == MOUNT_NAMESPACE && !namespaces
				    ? 0
				    : set_one(msg, i, root_fds, made, e);
			if (r < 0)
				return error_object(e, r, "mount %s", msg->mounts[i]->point);
			done[i] = true;
			left--;
		}
	}
	return left ? invalid(e) : 0;
}
