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
#include "ns/mounts_idmap.h"
#include "ns/mounts_late.h"
#include "ns/mounts_overlay.h"
#include "ns/propagation.h"

#define PATH_SIZE MOUNTS_PATH_SIZE

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s", what);
}

bool mounts_absolute(const char *path)
{
	size_t len = strlen(path);

	return path[0] == '/' && len < 4096 && !strstr(path, "/../") &&
	       !(len >= 3 && !strcmp(path + len - 3, "/.."));
}

bool mounts_is_part(const Reprise__Mount *m)
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
	if (m->kind == MOUNT_FRESH && mounts_is_part(m) &&
	    (m->file || strcmp(m->type, "sysfs") || !mounts_absolute(m->root)))
		return invalid(e, "a part of a file system of which there are none");
	if ((m->kind == MOUNT_FRESH && !mounts_is_fresh(m->type)) ||
	    (m->kind == MOUNT_TMPFS && !mounts_is_memory(m->type)))
		return invalid(e, "a new file system of a type that none can have");
	if (!mounts_idmap_valid(m))
		return invalid(e, "a mount that shows impossible owners");
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

const char *mounts_mapped(const struct mounts_place *place, const char *external)
{
	size_t len = strlen(external);

	for (const char *const *pair = place->map; pair && *pair; pair++)
		if (!strncmp(*pair, external, len) && (*pair)[len] == '=')
			return *pair + len + 1;
	return external;
}

int mounts_open_in_root(int root, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};

	return (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
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

/* What is read-only by a lock of another user namespace stays so meanwhile. */
int mounts_set_flags(int fd, unsigned long flags, bool with_readonly, struct error *e)
{
	static const struct {
		unsigned long flag;
		uint64_t attr;
	} names[] = {
		{MS_RDONLY, MOUNT_ATTR_RDONLY},		{MS_NOSUID, MOUNT_ATTR_NOSUID},
		{MS_NODEV, MOUNT_ATTR_NODEV},		{MS_NOEXEC, MOUNT_ATTR_NOEXEC},
		{MS_NODIRATIME, MOUNT_ATTR_NODIRATIME}, {MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW},
	};
	struct mount_attr attr = {};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!with_readonly && names[i].flag & flags & MS_RDONLY)
			continue;
		else if (flags & names[i].flag)
			attr.attr_set |= names[i].attr;
		else
			attr.attr_clr |= names[i].attr;
	if (flags & (MS_NOATIME | MS_RELATIME | MS_STRICTATIME))
		attr.attr_clr |= MOUNT_ATTR__ATIME;
	if (flags & MS_NOATIME)
		attr.attr_set |= MOUNT_ATTR_NOATIME;
	else if (flags & MS_STRICTATIME)
		attr.attr_set |= MOUNT_ATTR_STRICTATIME;
	if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return error_errno(e, -errno, E_CONTAINER_MOUNT, "cannot set the flags");
	return 0;
}

int mounts_change_root(const char *root, struct error *e)
{
	/* The old root is mounted over the new one, and taken away from there (pivot_root(2)). */
	if (chdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return error_errno(e, -errno, E_NAMESPACE, "cannot change the root");
	return 0;
}
