/* SPDX-License-Identifier: Apache-2.0 */
/* The mounts of a container, made again from the host's files and from the image. */
#include <dirent.h>
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
#include "core/procfs.h"
#include "ns/mounts.h"
#include "ns/mounts_late.h"
#include "ns/mounts_overlay.h"
#include "ns/propagation.h"

#define PATH_SIZE MOUNTS_PATH_SIZE

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

static const Reprise__Mount *by_id(const Reprise__Container *msg, int id)
{
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (msg->mounts[i]->id == id)
			return msg->mounts[i];
	return NULL;
}

bool mounts_absolute(const char *path)
{
	size_t len = strlen(path);

	return path[0] == '/' && len < 4096 && !strstr(path, "/../") &&
	       !(len >= 3 && !strcmp(path + len - 3, "/.."));
}

static bool is_part(const Reprise__Mount *m)
{
	return *m->root && strcmp(m->root, "/") != 0;
}

static int validate_mount(const Reprise__Container *msg, size_t i, const struct mount_place *places,
			  struct error *e)
{
	const Reprise__Mount *m = msg->mounts[i];
	size_t of;

	if (m->kind != MOUNT_CGROUP && m->kind != MOUNT_NAMESPACE &&
	    (m->kind < MOUNT_EXTERNAL || m->kind > MOUNT_REMOUNT))
		return invalid(e, "a mount of unknown kind");
	if (!mounts_absolute(m->point))
		return invalid(e, "a mount has an impossible path");
	if (m->kind == MOUNT_EXTERNAL && !mounts_absolute(m->external))
		return invalid(e, "a mount has an impossible source");
	if (m->kind == MOUNT_REMOUNT && !msg->derived_mounts)
		return invalid(e, "a mount that is not there is changed");
	if (m->kind == MOUNT_BIND) {
		of = mounts_place(places, msg->n_mounts, m->of);
		if (of == SIZE_MAX || of == i || (*m->root && !mounts_absolute(m->root)))
			return invalid(e, "a mount of a part of nothing");
	}
	if (m->kind == MOUNT_CGROUP && (strstr(m->root, "..") || strlen(m->root) > 3000))
		return invalid(e, "a mount of no control group");
	if (m->kind == MOUNT_OVERLAY && mounts_validate_overlay(m, e) < 0)
		return -EBADMSG;
	if (m->kind == MOUNT_FRESH && is_part(m) &&
	    (m->file || strcmp(m->type, "sysfs") || !mounts_absolute(m->root)))
		return invalid(e, "a part of a file system of which there are none");
	if ((m->kind == MOUNT_FRESH && !mounts_is_fresh(m->type)) ||
	    (m->kind == MOUNT_TMPFS && !mounts_is_memory(m->type)))
		return invalid(e, "a new file system of a type that none can have");
	if (m->early && (m->kind != MOUNT_TMPFS || !m->layer))
		return invalid(e, "a mount that cannot be filled before the others");
	if (i == 0 && !msg->derived_mounts && strcmp(m->point, "/"))
		return invalid(e, "the first mount is not the root");
	return 0;
}

int mounts_validate(const Reprise__Container *msg, struct error *e)
{
	_cleanup_(free_ptr) struct mount_place *places = mounts_places(msg->n_mounts, msg->mounts);

	if (!places)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of mounts");
	for (size_t i = 1; i < msg->n_mounts; i++)
		if (places[i].id == places[i - 1].id)
			return invalid(e, "two mounts have the same id");
	for (size_t i = 0; i < msg->n_mounts; i++) {
		int r = validate_mount(msg, i, places, e);

		if (r < 0)
			return r;
	}
	return propagation_validate(msg, e);
}

static int make_directory(const char *path, struct error *e)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return error_errno(e, -errno, E_NAMESPACE, "cannot make %s", path);
	return 0;
}

int mounts_upper(const struct mounts_place *place, const Reprise__Mount *m, struct error *e)
{
	char path[PATH_SIZE];
	int r, fd;

	if (!place->layers)
		return error_set(e, -EINVAL, E_CONTAINER_MOUNT,
				 "no directory was named for the files of the container");
	snprintf(path, sizeof(path), "%s/%d", place->layers, m->id);
	r = make_directory(path, e);
	snprintf(path, sizeof(path), "%s/%d/work", place->layers, m->id);
	if (r >= 0)
		r = make_directory(path, e);
	snprintf(path, sizeof(path), "%s/%d/upper", place->layers, m->id);
	if (r >= 0)
		r = make_directory(path, e);
	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? error_errno(e, -errno, E_NAMESPACE, "cannot open %s", path) : fd;
}

struct build {
	const Reprise__Container *msg;
	const struct mounts_place *place;
	const char *root; /* prefix of all mount points; "" for a copy of the host's */
	int *sources;	  /* of a copy: one for each of msg->mounts, or -1; may be NULL */
	int *made;	  /* those that will be hidden, likewise */
};

static void close_sources(struct build *b)
{
	for (size_t i = 0; i < b->msg->n_mounts; i++) {
		if (b->sources)
			close_fd(&b->sources[i]);
		if (b->made)
			close_fd(&b->made[i]);
	}
	free(b->sources);
	free(b->made);
}

static size_t place_of(const Reprise__Container *msg, const Reprise__Mount *m)
{
	size_t i = 0;

	while (i < msg->n_mounts && msg->mounts[i] != m)
		i++;
	return i;
}

int mounts_open_in_root(int root, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};

	return (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
}

/* The contents of a tmpfs follow later; what is mounted on them is there first. */
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

/* Where a mount goes: below the new root, by a path that no link leads astray. */
static int target(const struct build *b, const char *point, bool directory, char *path, size_t size,
		  struct error *e)
{
	_cleanup_(close_fd) int root = -EBADF, fd = -EBADF;
	char link[64];
	ssize_t n;
	int r = 0;

	if (*b->root && !strcmp(point, "/")) {
		snprintf(path, size, "%s", b->root);
		return 0;
	}
	root = open(*b->root ? b->root : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root >= 0)
		fd = mounts_open_in_root(root, point);
	if (fd < 0 && root >= 0 && errno == ENOENT && strcmp(point, "/")) {
		r = make_point(root, point, directory);
		fd = r < 0 ? r : mounts_open_in_root(root, point);
	}
	if (fd < 0)
		return error_errno(e, r < 0 ? r : -errno, E_CONTAINER_MOUNT,
				   "there is no %s to mount on", point);
	/* mount(2) takes a path; /proc is the host's while the root is not changed yet. */
	snprintf(link, sizeof(link), "/proc/thread-self/fd/%d", fd);
	n = readlink(link, path, size - 1);
	if (n < 0)
		snprintf(path, size, "%s%s", b->root, point);
	else
		path[n] = '\0';
	return 0;
}

const char *mounts_mapped(const struct mounts_place *place, const char *external)
{
	size_t len = strlen(external);

	for (const char *const *pair = place->map; pair && *pair; pair++)
		if (!strncmp(*pair, external, len) && (*pair)[len] == '=')
			return *pair + len + 1;
	return external;
}

static int bind(const char *from, const char *to, struct error *e)
{
	if (mount(from, to, NULL, MS_BIND, NULL) < 0)
		return error_errno(e, -errno,
				   errno == ENOENT ? E_CONTAINER_SOURCE : E_CONTAINER_MOUNT,
				   "cannot bind %s", from);
	return 0;
}

static int attach(int fd, const char *to, struct error *e)
{
	if (move_mount(fd, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot mount it");
	return 0;
}

/* What a mount is of, as it was before anything was mounted over it; -1: it is not known. */
static int source_of(const struct build *b, const Reprise__Mount *m)
{
	return b->sources ? b->sources[place_of(b->msg, m)] : -EBADF;
}

static bool leads_to(const char *path, int fd)
{
	const unsigned int mask = STATX_INO | STATX_MNT_ID;
	struct statx a = {}, b = {};

	return statx(AT_FDCWD, path, 0, mask, &a) == 0 &&
	       statx(fd, "", AT_EMPTY_PATH, mask, &b) == 0 && a.stx_mnt_id == b.stx_mnt_id &&
	       a.stx_ino == b.stx_ino;
}

static int attach_copy(int fd, const char *to, struct error *e)
{
	_cleanup_(close_fd) int copy =
		open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	return copy < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot bind it")
			: attach(copy, to, e);
}

/*
 * Of a copy of the host's mounts some may be hidden by now. In a namespace that belongs to another
 * user namespace, what has locked mounts on it is not bound alone (has_locked_children()), and
 * paths may lead through directories of others.
 */
static int bind_external(const struct build *b, const Reprise__Mount *m, const char *to,
			 struct error *e)
{
	const char *from = mounts_mapped(b->place, m->external);
	int source = source_of(b, m), fd = -EBADF, r;

	if (b->place->external_fd)
		return attach(*b->place->external_fd, to, e);
	r = source < 0 || leads_to(from, source) ? bind(from, to, e) : attach_copy(source, to, e);
	if ((r == -EINVAL || r == -EACCES) && b->place->external)
		fd = b->place->external(b->place->arg, m);
	if (fd < 0)
		return r;
	error_clear(e);
	return attach(fd, to, e);
}

/* One that is bound elsewhere must be a device from the beginning; its directory is there then. */
static int make_device(const struct build *b, const Reprise__Mount *m, const Reprise__Mount *of,
		       const char *point, struct error *e)
{
	const char *name = strrchr(point, '/') + 1;
	_cleanup_(free_ptr) char *above = strndup(point, (size_t)(name - point));
	_cleanup_(close_fd) int root = -EBADF, dir = -EBADF;
	mode_t mode;
	dev_t dev;
	int r;

	if (!m->file || of->kind != MOUNT_TMPFS || !b->place->device ||
	    !b->place->device(b->place->arg, of, m->root, &mode, &dev))
		return 0;
	root = open(*b->root ? b->root : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || !above)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot open the root");
	above[strlen(above) > 1 ? strlen(above) - 1 : 1] = '\0';
	dir = mounts_open_in_root(root, above);
	if (dir < 0 && errno == ENOENT) {
		r = make_point(root, above, true);
		dir = r < 0 ? r : mounts_open_in_root(root, above);
	}
	if (dir < 0 || (mknodat(dir, name, mode, dev) < 0 && errno != EEXIST))
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot make device %s", point);
	return 0;
}

/* Its files are there already; its path leads elsewhere, perhaps. */
static int bind_hidden(int of, const Reprise__Mount *m, const char *to, struct error *e)
{
	_cleanup_(close_fd) int from = mounts_open_in_root(of, *m->root ? m->root : "/");

	return from < 0 ? error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot bind %s", m->root)
			: attach_copy(from, to, e);
}

/* What is bound may be in a tmpfs that is filled later: then it is made here, and filled there. */
static int bind_part(const struct build *b, const Reprise__Mount *m, const char *to,
		     struct error *e)
{
	const Reprise__Mount *of = by_id(b->msg, m->of);
	_cleanup_(free_ptr) char *point = NULL;
	char from[PATH_SIZE];
	int r, made = b->made ? b->made[place_of(b->msg, of)] : -EBADF;

	if (made >= 0)
		return bind_hidden(made, m, to, e);
	if (asprintf(&point, "%s%s", strcmp(of->point, "/") ? of->point : "",
		     *m->root ? m->root : "/") < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	r = make_device(b, m, of, point, e);
	if (r >= 0)
		r = target(b, point, !m->file, from, sizeof(from), e);
	return r < 0 ? r : bind(from, to, e);
}

static int control_group(const struct build *b, const Reprise__Mount *m, const char *to,
			 struct error *e)
{
	const char *dir =
		b->place->cgroup ? b->place->cgroup(b->place->cgroups, m->external) : NULL;
	char from[PATH_SIZE];

	if (!dir)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "there is no control group for it in hierarchy '%s'", m->external);
	snprintf(from, sizeof(from), "%s/%s", dir, m->root);
	return bind(from, to, e);
}

/* Of what has just been mounted there. */
static int leave_part(const Reprise__Mount *m, const char *to, struct error *e)
{
	_cleanup_(close_fd) int all = open(to, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(close_fd) int part = all < 0 ? -1 : mounts_open_in_root(all, m->root);
	_cleanup_(close_fd) int copy =
		part < 0 ? -1
			 : open_tree(part, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (copy < 0 || umount2(to, MNT_DETACH) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot bind %s of a new %s",
				   m->root, m->type);
	return attach(copy, to, e);
}

static int fresh(const struct build *b, const Reprise__Mount *m, const char *to, struct error *e)
{
	unsigned long flags = m->flags & (MS_NOSUID | MS_NODEV | MS_NOEXEC);

	/* One with contents is filled first. */
	if (m->kind == MOUNT_FRESH && m->super_readonly)
		flags |= MS_RDONLY;
	if (m->early && b->place->early_fds)
		return attach(b->place->early_fds[place_of(b->msg, m)], to, e);
	if (b->place->fresh_fd && *b->place->fresh_fd >= 0)
		return attach(*b->place->fresh_fd, to, e);
	if (mount(m->source, to, m->type, flags, m->data) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot mount a new %s", m->type);
	return m->kind == MOUNT_FRESH && is_part(m) ? leave_part(m, to, e) : 0;
}

/* Read-only comes last: layers are still to be filled. */
static int set_flags(const Reprise__Mount *m, const char *to, bool with_readonly, struct error *e)
{
	unsigned long flags = m->flags & ~(with_readonly ? 0UL : (unsigned long)MS_RDONLY);

	if (mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | flags, NULL) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot set the flags");
	return 0;
}

static int mount_one(const struct build *b, const Reprise__Mount *m, struct error *e)
{
	char to[PATH_SIZE];
	int r = target(b, m->point, !m->file, to, sizeof(to), e), fd;

	if (r < 0)
		return r;
	switch (m->kind) {
	case MOUNT_EXTERNAL:
		r = bind_external(b, m, to, e);
		break;
	case MOUNT_BIND:
		r = bind_part(b, m, to, e);
		break;
	case MOUNT_OVERLAY:
		r = mounts_restart_overlay(m, b->place, b->root, to, e);
		break;
	case MOUNT_CGROUP:
		r = control_group(b, m, to, e);
		break;
	case MOUNT_NAMESPACE:
		/* Those of the root's mounts are mounted when all namespaces are there. */
		if (!b->place->namespace)
			return 0;
		r = mounts_bind_namespace(b->place->proc_fd, b->place->namespace(b->place->arg, m),
					  to, e);
		break;
	case MOUNT_FRESH:
	case MOUNT_TMPFS:
		r = fresh(b, m, to, e);
		break;
	default:
		break;
	}
	if (r < 0)
		return r;
	r = target(b, m->point, !m->file, to, sizeof(to), e);
	if (r >= 0)
		r = set_flags(m, to, m->kind != MOUNT_TMPFS || m->early, e);
	if (r < 0 || !m->hidden || !b->made)
		return r;
	fd = open(to, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot open it");
	b->made[place_of(b->msg, m)] = fd;
	return 0;
}

/* By a path that begins at our /proc: it may be mounted nowhere. */
int mounts_bind_namespace(int proc_fd, int fd, const char *to, struct error *e)
{
	_cleanup_(close_fd) int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char from[64];
	int r = 0;

	snprintf(from, sizeof(from), "thread-self/fd/%d", fd);
	if (here < 0 || fchdir(proc_fd) < 0 || mount(from, to, NULL, MS_BIND, NULL) < 0)
		r = error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot mount a namespace on %s", to);
	if (here >= 0 && fchdir(here) < 0 && r >= 0)
		r = error_errno(e, -errno, E_SYSTEM, "fchdir");
	return r;
}

int mounts_change_root(const char *root, struct error *e)
{
	/* The old root is mounted over the new one, and taken away from there (pivot_root(2)). */
	if (chdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot change the root");
	return 0;
}

int mounts_restart_one(const Reprise__Container *msg, size_t i, const struct mounts_place *place,
		       struct error *e)
{
	const struct build b = {.msg = msg, .place = place, .root = ""};

	return mount_one(&b, msg->mounts[i], e);
}

static int open_sources(struct build *b, struct error *e)
{
	const Reprise__Container *msg = b->msg;

	b->sources = calloc(msg->n_mounts + 1, sizeof(*b->sources));
	b->made = calloc(msg->n_mounts + 1, sizeof(*b->made));
	for (size_t i = 0; b->made && i < msg->n_mounts; i++)
		b->made[i] = -EBADF;
	if (!b->sources || !b->made)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the mounts");
	for (size_t i = 0; i < msg->n_mounts; i++)
		b->sources[i] = msg->derived_mounts && msg->mounts[i]->kind == MOUNT_EXTERNAL
					? open(mounts_mapped(b->place, msg->mounts[i]->external),
					       O_PATH | O_CLOEXEC)
					: -EBADF;
	return 0;
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

int mounts_restart(const Reprise__Container *msg, const struct mounts_place *place, struct error *e)
{
	_cleanup_(free_ptr) bool *late = mounts_find_late(msg->n_mounts, msg->mounts, e);
	_cleanup_(close_sources) struct build b = {msg, place,
						   msg->derived_mounts ? "" : place->root};
	int r = late ? open_sources(&b, e) : e->err;

	if (r < 0)
		return r;
	for (size_t i = 0; i < msg->n_unmounted; i++)
		if (umount2(msg->unmounted[i], MNT_DETACH) < 0 &&
		    is_still_mounted(msg->unmounted[i], errno))
			return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot unmount %s",
					   msg->unmounted[i]);
	for (size_t i = 0; i < msg->n_mounts && r >= 0; i++) {
		if (late[i])
			continue;
		r = mount_one(&b, msg->mounts[i], e);
		if (r < 0)
			error_object(e, r, "mount %s (%s)", msg->mounts[i]->point,
				     msg->mounts[i]->type);
	}
	if (r >= 0 && !msg->derived_mounts)
		r = mounts_change_root(place->root, e);
	if (r < 0 || place->apart)
		return r;
	return propagation_restart(msg, place->root_fds, b.made, place->namespace != NULL, e);
}
