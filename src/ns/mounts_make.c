/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mounts of an image, made one after the other. Nothing is found by its path that we have made:
 * each is mounted on the root of the one below it, of which there is a descriptor.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "ns/mounts.h"
#include "ns/mounts_covered.h"
#include "ns/mounts_early.h"
#include "ns/mounts_idmap.h"
#include "ns/mounts_late.h"
#include "ns/mounts_overlay.h"
#include "ns/propagation.h"

#define PATH_SIZE MOUNTS_PATH_SIZE

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

struct build {
	const Reprise__Container *msg;
	const struct mounts_place *place;
	const char *root; /* where all is mounted; "" where it is already */
	struct mount_place *places;
	int *sources; /* of a copy what it is bound from, as it was before; -1: it is not known */
	int *made;    /* the roots of those on which others are, or that join others */
	int *whole;   /* what others are bound from, without what is mounted on it */
	bool *taken;  /* which of the sources is a mount of its own */
	bool *kept, *bound; /* of which of them there is to be one */
	int bench; /* a directory that nobody sees, where mounts are before they are put in place */
};
#define BUILD_INIT              \
	{                       \
		.bench = -EBADF \
	}

/* With all that is left on it. */
static void leave_bench(struct build *b)
{
	if (b->bench >= 0 && fchdir(b->bench) == 0)
		ignore(umount2(".", MNT_DETACH), "it goes with its namespace");
	close_fd(&b->bench);
}

static void build_end(struct build *b)
{
	size_t n = b->msg ? b->msg->n_mounts : 0;

	leave_bench(b);
	for (size_t i = 0; i < n; i++) {
		if (b->sources)
			close_fd(&b->sources[i]);
		if (b->made)
			close_fd(&b->made[i]);
		if (b->whole)
			close_fd(&b->whole[i]);
	}
	free(b->places);
	free(b->sources);
	free(b->made);
	free(b->whole);
	free(b->taken);
	free(b->kept);
	free(b->bound);
}

static int *no_fds(size_t n)
{
	int *fds = calloc(n + 1, sizeof(*fds));

	for (size_t i = 0; fds && i < n; i++)
		fds[i] = -EBADF;
	return fds;
}

/* Over the root directory, where no path goes: it begins below (set_root()). Copies are made of
 * what is mounted only (before 6.15). */
static int set_bench_up(struct build *b, struct error *e)
{
	_cleanup_(close_fd) int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);

	if (fs >= 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		b->bench = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	if (b->bench < 0 || move_mount(b->bench, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make a place for mounts");
	return 0;
}

static void note_at(const struct build *b, bool *list, int id)
{
	size_t i = mounts_place(b->places, b->msg->n_mounts, id);

	if (i != SIZE_MAX)
		list[i] = true;
}

/* One without a writable layer is so by itself. */
static bool has_readonly_files(const Reprise__Mount *m)
{
	return m->super_readonly &&
	       (m->kind == MOUNT_TMPFS || (m->kind == MOUNT_OVERLAY && *m->external));
}

static bool is_readonly(const Reprise__Mount *m)
{
	return m->flags & MS_RDONLY || has_readonly_files(m);
}

/* There may be thousands, and not so many descriptors. */
static void note_used(struct build *b)
{
	for (size_t i = 0; i < b->msg->n_mounts; i++) {
		const Reprise__Mount *m = b->msg->mounts[i];

		b->kept[i] |= is_readonly(m) || m->shared || m->unbindable || m->peer ||
			      m->master || *m->root_peer || *m->root_master;
		note_at(b, b->kept, m->parent);
		note_at(b, b->kept, m->peer);
		note_at(b, b->kept, m->master);
		if (m->kind == MOUNT_BIND)
			note_at(b, b->bound, m->of);
		/* A copy stands where it belongs in mountinfo, by its age. */
		b->bound[i] |= m->kind == MOUNT_TMPFS;
	}
}

static int build_begin(struct build *b, const Reprise__Container *msg,
		       const struct mounts_place *place, struct error *e)
{
	b->msg = msg;
	b->place = place;
	b->root = msg->derived_mounts || !place->root ? "" : place->root;
	b->places = mounts_places(msg->n_mounts, msg->mounts);
	b->sources = no_fds(msg->n_mounts);
	b->made = no_fds(msg->n_mounts);
	b->whole = no_fds(msg->n_mounts);
	b->taken = calloc(msg->n_mounts + 1, sizeof(*b->taken));
	b->kept = calloc(msg->n_mounts + 1, sizeof(*b->kept));
	b->bound = calloc(msg->n_mounts + 1, sizeof(*b->bound));
	if (!b->places || !b->sources || !b->made || !b->whole || !b->taken || !b->kept ||
	    !b->bound)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the mounts");
	note_used(b);
	return set_bench_up(b, e);
}

/* What is mounted on the host's files may not be there. */
static int make_point(int root, const char *point, bool directory)
{
	_cleanup_(free_ptr) char *path = strdup(point);
	_cleanup_(close_fd) int parent = -EBADF;
	int fd;

	if (!path)
		return -ENOMEM;
	for (char *s = path; s;) {
		char *name = s + 1;

		*s = '\0';
		close_fd(&parent);
		parent = mounts_open_in_root(root, *path ? path : "/");
		*s = '/';
		if (parent < 0)
			return -errno;
		s = strchr(name, '/');
		if (s)
			*s = '\0';
		if (s || directory) {
			if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
				return -errno;
		} else {
			fd = openat(parent, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC,
				    0644);
			if (fd < 0)
				return -errno;
			close(fd);
		}
		if (s)
			*s = '/';
	}
	return 0;
}

static int open_in(const struct build *b, size_t parent, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC,
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_XDEV};

	return *path ? (int)syscall(SYS_openat2, b->made[parent], path, &how, sizeof(how))
		     : fcntl(b->made[parent], F_DUPFD_CLOEXEC, 3);
}

/*
 * Where a mount goes: on the one below it, and no link leads astray. What is deeper was mounted
 * before, so that nothing is in the way; one of a copy of the host's is found by its path.
 */
static int target(const struct build *b, const Reprise__Mount *m, struct error *e)
{
	const size_t parent = mounts_place(b->places, b->msg->n_mounts, m->parent);
	const char *point = m->point;
	_cleanup_(close_fd) int root = -EBADF;
	int fd, r;

	if (m->kind != MOUNT_REMOUNT && parent != SIZE_MAX && b->made[parent] >= 0 &&
	    b->msg->mounts[parent] != m && mount_is_below(point, b->msg->mounts[parent]->point)) {
		const char *above = b->msg->mounts[parent]->point;

		point += strcmp(above, "/") ? strlen(above) : 0;
		point += *point == '/';
		root = open_in(b, parent, "");
		fd = root < 0 ? -1 : open_in(b, parent, point);
	} else {
		root = open(*b->root ? b->root : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		fd = root < 0 ? -1 : mounts_open_in_root(root, point);
	}
	if (fd < 0 && root >= 0 && errno == ENOENT) {
		r = make_point(root, point - (*point != '/'), !m->file);
		fd = r < 0 ? r : mounts_open_in_root(root, point);
		if (r < 0)
			errno = -r;
	}
	return fd < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "there is no %s to mount on",
				    m->point)
		      : fd;
}

static int duplicate(int fd, struct error *e)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return copy < 0 ? error_errno(e, -errno, E_SYSTEM, "dup") : copy;
}

static bool leads_to(const char *path, int fd)
{
	const unsigned int mask = STATX_INO | STATX_MNT_ID;
	struct statx a = {}, b = {};

	return statx(AT_FDCWD, path, 0, mask, &a) == 0 &&
	       statx(fd, "", AT_EMPTY_PATH, mask, &b) == 0 && a.stx_mnt_id == b.stx_mnt_id &&
	       a.stx_ino == b.stx_ino;
}

/*
 * Of a copy of the host's mounts some may be hidden by now. In a namespace that belongs to another
 * user namespace, what has locked mounts on it is not bound alone (has_locked_children()), and
 * paths may lead through directories of others.
 */
static int make_external(const struct build *b, size_t i, struct error *e)
{
	const Reprise__Mount *m = b->msg->mounts[i];
	const char *from = mounts_mapped(b->place, m->external);
	int source = b->sources[i], fd, err;

	if (b->place->external_fd)
		return duplicate(*b->place->external_fd, e);
	if (b->taken[i])
		return duplicate(source, e);
	if (source >= 0 && !leads_to(from, source))
		fd = open_tree(source, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	else
		fd = open_tree(AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd >= 0)
		return fd;
	err = errno;
	if ((err == EINVAL || err == EACCES || err == ENOENT) && b->place->external) {
		fd = b->place->external(b->place->arg, m);
		if (fd >= 0)
			return duplicate(fd, e);
	}
	return error_errno(e, -err, err == ENOENT ? E_CONTAINER_SOURCE : E_CONTAINER_MOUNT,
			   "cannot bind %s", from);
}

static int make_whole(struct build *b, size_t i, struct error *e);

/* Its files are there already. What was there before us is found by its path. */
static int make_bind(struct build *b, size_t i, struct error *e)
{
	const Reprise__Mount *m = b->msg->mounts[i];
	const size_t of = mounts_place(b->places, b->msg->n_mounts, m->of);
	_cleanup_(close_fd) int from = -EBADF, whole = -EBADF;
	int fd = -1;

	if (of == SIZE_MAX || b->msg->mounts[of]->kind == MOUNT_BIND)
		return invalid(e, "a mount of a part of nothing");
	if (b->place->one_by_one)
		whole = open(b->msg->mounts[of]->point, O_PATH | O_CLOEXEC);
	else if (make_whole(b, of, e) >= 0)
		whole = duplicate(b->whole[of], e);
	else
		return e->err;
	if (whole >= 0)
		from = mounts_open_in_root(whole, *m->root ? m->root : "/");
	if (from >= 0)
		fd = open_tree(from, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	return fd < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot bind %s of %s",
				    *m->root ? m->root : "/", b->msg->mounts[of]->point)
		      : fd;
}

static int make_control_group(const struct build *b, const Reprise__Mount *m, struct error *e)
{
	const char *dir =
		b->place->cgroup ? b->place->cgroup(b->place->cgroups, m->external) : NULL;
	char from[PATH_SIZE];
	int fd;

	if (!dir)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "there is no control group for it in hierarchy '%s'", m->external);
	snprintf(from, sizeof(from), "%s/%s", dir, m->root);
	fd = open_tree(AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	return fd < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot bind %s", from) : fd;
}

/* By mount(2), to which a path is told: in the bench. */
static int mount_there(struct build *b, size_t i, const char *name, struct error *e)
{
	const Reprise__Mount *m = b->msg->mounts[i];
	unsigned long flags = m->flags & (MS_NOSUID | MS_NODEV | MS_NOEXEC);

	if (m->kind == MOUNT_OVERLAY)
		return mounts_restart_overlay(m, b->place, b->root, b->bench, name, e);
	if (m->super_readonly)
		flags |= MS_RDONLY;
	if (fchdir(b->bench) < 0 || mount(m->source, name, m->type, flags, m->data) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot mount a new %s", m->type);
	return 0;
}

/* What is there by that name in the bench, or a part of it. */
static int open_new(const struct build *b, const Reprise__Mount *m, const char *name)
{
	const bool part = m->kind == MOUNT_FRESH && mounts_is_part(m);
	_cleanup_(close_fd) int all = openat(b->bench, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(close_fd) int from =
		all < 0 ? -1 : mounts_open_in_root(all, part ? m->root : "/");

	return from < 0 ? -1
			: open_tree(from, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

static int make_new(struct build *b, size_t i, struct error *e)
{
	const Reprise__Mount *m = b->msg->mounts[i];
	char name[32];
	int fd, r;

	if (m->kind == MOUNT_TMPFS && b->place->early_fds && b->place->early_fds[i] >= 0)
		return duplicate(b->place->early_fds[i], e);
	if (m->kind == MOUNT_OVERLAY && b->place->external &&
	    b->place->external(b->place->arg, m) >= 0)
		return duplicate(b->place->external(b->place->arg, m), e);
	if (m->kind == MOUNT_FRESH && b->place->fresh_fd && *b->place->fresh_fd >= 0)
		return duplicate(*b->place->fresh_fd, e);
	snprintf(name, sizeof(name), "new%zu", i);
	if (mkdirat(b->bench, name, 0700) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot make a place for it");
	r = mount_there(b, i, name, e);
	if (r < 0)
		return r;
	fd = open_new(b, m, name);
	return fd < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot bind it") : fd;
}

static int make_namespace(const struct build *b, const Reprise__Mount *m, struct error *e)
{
	int fd = b->place->namespace(b->place->arg, m), copy;

	copy = fd < 0 ? -1 : open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	return copy < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot mount a namespace")
			: copy;
}

/* Mounted nowhere yet. */
static int make(struct build *b, size_t i, struct error *e)
{
	const Reprise__Mount *m = b->msg->mounts[i];

	switch (m->kind) {
	case MOUNT_EXTERNAL:
		return make_external(b, i, e);
	case MOUNT_BIND:
		return make_bind(b, i, e);
	case MOUNT_CGROUP:
		return make_control_group(b, m, e);
	case MOUNT_NAMESPACE:
		return make_namespace(b, m, e);
	default:
		return make_new(b, i, e);
	}
}

/* A file can be mounted on a file only. */
static int make_whole(struct build *b, size_t i, struct error *e)
{
	char name[32];
	int fd;

	if (b->whole[i] >= 0)
		return 0;
	b->whole[i] = make(b, i, e);
	if (b->whole[i] < 0)
		return e->err;
	snprintf(name, sizeof(name), "whole%zu", i);
	if (b->msg->mounts[i]->file) {
		fd = openat(b->bench, name, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		close_fd(&fd);
	} else {
		ignore(mkdirat(b->bench, name, 0700), "then it cannot be mounted there");
	}
	if (move_mount(b->whole[i], "", b->bench, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot mount it");
	return 0;
}

static int make_copy(struct build *b, size_t i, struct error *e)
{
	int fd;

	if (make_whole(b, i, e) < 0)
		return e->err;
	fd = open_tree(b->whole[i], "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	return fd < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot bind it") : fd;
}

static int mount_one(struct build *b, size_t i, struct error *e)
{
	const Reprise__Mount *m = b->msg->mounts[i];
	_cleanup_(close_fd) int to = target(b, m, e), fd = -EBADF;
	int r = to < 0 ? to : mounts_below_note(b->place->below, i, to, e);

	/* Namespaces of the root's mounts are mounted when all of them are there. */
	if (r < 0 || (m->kind == MOUNT_NAMESPACE && !b->place->namespace))
		return r;
	if (m->kind == MOUNT_REMOUNT)
		fd = duplicate(to, e);
	else
		fd = b->bound[i] ? make_copy(b, i, e) : make(b, i, e);
	if (fd < 0)
		return fd;
	r = mounts_idmap_restart(fd, b->bench, m, e);
	if (r < 0)
		return r;
	if (m->kind != MOUNT_REMOUNT &&
	    move_mount(fd, "", to, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot mount it");
	r = mounts_set_flags(fd, m->flags, false, e);
	if (r >= 0 && b->kept[i])
		b->made[i] = take_fd(&fd);
	return r;
}

/* Last: an overlay writes to one of its directories when it is mounted. */
static int make_readonly(const struct build *b, size_t i, struct error *e)
{
	const Reprise__Mount *m = b->msg->mounts[i];
	int r = 0;

	if (b->made[i] < 0 || !is_readonly(m))
		return 0;
	if (m->flags & MS_RDONLY)
		r = mounts_set_flags(b->made[i], m->flags, true, e);
	if (r >= 0 && has_readonly_files(m))
		r = mounts_make_readonly(b->made[i], "", e);
	return r < 0 ? error_object(e, r, "mount %s (%s)", m->point, m->type) : 0;
}

int mounts_restart_one(const Reprise__Container *msg, size_t i, const struct mounts_place *place,
		       struct error *e)
{
	_cleanup_(build_end) struct build b = BUILD_INIT;
	int r = build_begin(&b, msg, place, e);

	if (r >= 0)
		r = mount_one(&b, i, e);
	if (r >= 0)
		r = make_readonly(&b, i, e);
	leave_bench(&b);
	return chdir("/") < 0 && r >= 0 ? error_errno(e, -errno, E_SYSTEM, "chdir") : r;
}

static bool is_unmounted(const Reprise__Container *msg, const char *path)
{
	for (size_t i = 0; i < msg->n_unmounted; i++)
		if (mount_is_below(path, msg->unmounted[i]))
			return true;
	return false;
}

/* While nothing is mounted over them. What is unmounted has no copy any more. */
static void open_sources(struct build *b)
{
	for (size_t i = 0; i < b->msg->n_mounts; i++) {
		const char *from;

		if (!b->msg->derived_mounts || b->msg->mounts[i]->kind != MOUNT_EXTERNAL)
			continue;
		from = mounts_mapped(b->place, b->msg->mounts[i]->external);
		if (is_unmounted(b->msg, from))
			b->sources[i] =
				open_tree(AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		b->taken[i] = b->sources[i] >= 0;
		if (!b->taken[i])
			b->sources[i] = open(from, O_PATH | O_CLOEXEC);
	}
}

/*
 * What the host has not mounted any more is gone as well. One that is locked (of another user
 * namespace) fails as what is no mount does, and is there.
 */
static bool is_still_mounted(const char *point, int err)
{
	struct statx st = {};

	if (err == ENOENT || err == ENOTDIR)
		return false;
	return err != EINVAL || statx(AT_FDCWD, point, AT_SYMLINK_NOFOLLOW, 0, &st) < 0 ||
	       !(st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) ||
	       (st.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

static int unmount_all(const Reprise__Container *msg, struct error *e)
{
	for (size_t i = 0; i < msg->n_unmounted; i++)
		if (umount2(msg->unmounted[i], MNT_DETACH) < 0 &&
		    is_still_mounted(msg->unmounted[i], errno))
			return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot unmount %s",
					   msg->unmounted[i]);
	return 0;
}

int mounts_restart(const Reprise__Container *msg, const struct mounts_place *place, struct error *e)
{
	_cleanup_(free_ptr) bool *late = mounts_find_late(msg->n_mounts, msg->mounts, e);
	_cleanup_(build_end) struct build b = BUILD_INIT;
	int r = late ? build_begin(&b, msg, place, e) : e->err;

	if (r < 0)
		return r;
	open_sources(&b);
	r = unmount_all(msg, e);
	for (size_t i = 0; i < msg->n_mounts && r >= 0; i++) {
		if (late[i])
			continue;
		r = mount_one(&b, i, e);
		if (r < 0)
			error_object(e, r, "mount %s (%s)", msg->mounts[i]->point,
				     msg->mounts[i]->type);
	}
	for (size_t i = 0; i < msg->n_mounts && r >= 0; i++)
		r = make_readonly(&b, i, e);
	leave_bench(&b);
	if (chdir("/") < 0 && r >= 0)
		r = error_errno(e, -errno, E_SYSTEM, "chdir");
	if (r >= 0 && !msg->derived_mounts)
		r = mounts_change_root(place->root, e);
	if (r < 0 || place->apart)
		return r;
	return propagation_restart(msg, place->root_fds, b.made, place->namespace != NULL, e);
}
