/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of which nothing is known but where the kernel has it, a mount and a directory entry: the
 * names up to the root of the mount are read from its memory, and what they lead to is compared
 * with that very entry. Nothing is opened but with O_PATH, so that nobody who watches is told.
 */
#include "fs/dentry.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/fdinfo.h"
#include "fs/watch.h"

#define DEPTH_MAX 4096

int dentry_of(struct kernel_memory *k, int fd, uint64_t *ret_mount, uint64_t *ret_dentry)
{
	const int mount = kernel_offset(k, "file", "f_path.mnt");
	const int dentry = kernel_offset(k, "file", "f_path.dentry");
	int r = kernel_of_file(k, fd, &mount, 1, ret_mount, sizeof(*ret_mount));

	return r < 0 ? r : kernel_of_file(k, fd, &dentry, 1, ret_dentry, sizeof(*ret_dentry));
}

/* Puts "/" and the name in front of what ends at *at. */
static int put_name(struct kernel_memory *k, uint64_t dentry, char *path, size_t *at)
{
	const int name_at = kernel_offset(k, "dentry", "d_name.name");
	uint32_t len;
	int r = name_at < 0 ? name_at
			    : kernel_member(k, dentry, "dentry", "d_name.len", &len, sizeof(len));
	uint64_t name;

	if (r < 0)
		return r;
	if (!len || len > NAME_MAX || len + 1 > *at)
		return -ENAMETOOLONG;
	name = kernel_pointer(k, dentry + (uint64_t)name_at);
	*at -= len;
	r = name ? kernel_read(k, name, path + *at, len) : -EFAULT;
	path[--*at] = '/';
	return r;
}

void dentry_name(struct kernel_memory *k, uint64_t dentry, char name[NAME_MAX + 1])
{
	char text[NAME_MAX + 2] = "";
	size_t at = sizeof(text) - 1;

	snprintf(name, NAME_MAX + 1, "%s",
		 put_name(k, dentry, text, &at) < 0 ? "?" : text + at + 1);
}

/* The path below the root of the mount: stands at the end of the room, from *at on. */
static int read_path(struct kernel_memory *k, uint64_t mount, uint64_t dentry, char *path,
		     size_t *at)
{
	uint64_t root, parent;
	int r = kernel_member(k, mount, "vfsmount", "mnt_root", &root, sizeof(root));

	while (r >= 0 && dentry != root) {
		r = put_name(k, dentry, path, at);
		if (r >= 0)
			r = kernel_member(k, dentry, "dentry", "d_parent", &parent, sizeof(parent));
		if (r >= 0 && parent == dentry)
			r = -ESTALE;
		dentry = parent;
	}
	return r;
}

int dentry_path(struct kernel_memory *k, uint64_t dentry, char *path, size_t size, const char **ret)
{
	size_t at = size - 1;
	uint64_t parent = 0;
	int r = 0;

	path[at] = '\0';
	for (int i = 0; i < DEPTH_MAX && r >= 0; i++, dentry = parent) {
		r = kernel_member(k, dentry, "dentry", "d_parent", &parent, sizeof(parent));
		if (r < 0 || parent == dentry)
			break;
		r = put_name(k, dentry, path, &at);
	}
	*ret = path[at] ? path + at : "/";
	return r < 0 ? r : parent == dentry ? 0 : -ELOOP;
}

/* Where a mount stands, as mountinfo has it. */
static int mount_point(struct checkpoint *c, uint64_t mount, char point[PATH_MAX])
{
	const int in = kernel_offset(c->kernel, "mount", "mnt");
	_cleanup_(free_ptr) char *text = NULL;
	int id, is, r;
	ssize_t n;

	if (in < 0)
		return in;
	r = kernel_member(c->kernel, mount - (uint64_t)in, "mount", "mnt_id", &id, sizeof(id));
	if (r < 0)
		return r;
	n = procfs_read(c->proc_fd, &text, NULL, "self/mountinfo");
	if (n < 0)
		return (int)n;
	for (const char *line = text; *line; fdinfo_skip_line(&line))
		if (sscanf(line, "%d %*d %*s %*s %4095s", &is, point) == 2 && is == id)
			return 0;
	return -ESTALE;
}

int dentry_open(struct checkpoint *c, uint64_t mount, uint64_t dentry)
{
	char below[PATH_MAX], point[PATH_MAX], path[2 * PATH_MAX];
	size_t at = sizeof(below) - 1;
	uint64_t mount_is, dentry_is;
	_cleanup_(close_fd) int fd = -EBADF;
	int r = mount_point(c, mount, point);

	below[at] = '\0';
	if (r >= 0)
		r = read_path(c->kernel, mount, dentry, below, &at);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s%s",
		 strcmp(point, "/") ? point
		 : below[at]	    ? ""
				    : "/",
		 below + at);
	fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	r = fd < 0 ? -errno : dentry_of(c->kernel, fd, &mount_is, &dentry_is);
	if (r >= 0 && (mount_is != mount || dentry_is != dentry))
		r = -ESTALE;
	return r < 0 ? r : take_fd(&fd);
}

/* generic_encode_ino32_fh() */
static int find_inode(struct kernel_memory *k, uint64_t dentry, struct watch_inode *ret)
{
	uint64_t inode = 0, super = 0, number = 0;
	uint32_t device = 0, generation = 0, low;
	int r = kernel_member(k, dentry, "dentry", "d_inode", &inode, sizeof(inode));

	if (r >= 0 && !inode)
		r = -ESTALE;
	if (r >= 0)
		r = kernel_member(k, inode, "inode", "i_ino", &number, sizeof(number));
	if (r >= 0)
		r = kernel_member(k, inode, "inode", "i_generation", &generation,
				  sizeof(generation));
	if (r >= 0)
		r = kernel_member(k, inode, "inode", "i_sb", &super, sizeof(super));
	if (r >= 0)
		r = kernel_member(k, super, "super_block", "s_dev", &device, sizeof(device));
	if (r < 0)
		return r;
	low = (uint32_t)number;
	*ret = (struct watch_inode){.ino = number, .dev = watch_dev(device)};
	ret->handle = (struct file_handle *)ret->room;
	ret->handle->handle_type = 1; /* FILEID_INO32_GEN */
	ret->handle->handle_bytes = 8;
	memcpy(ret->handle->f_handle, &low, sizeof(low));
	memcpy(ret->handle->f_handle + sizeof(low), &generation, sizeof(generation));
	return 0;
}

/* What is kept by its entry alone is found by that (d_obtain_alias()). */
int dentry_open_removed(struct checkpoint *c, uint64_t mount, uint64_t dentry)
{
	struct watch_inode w;
	int r = find_inode(c->kernel, dentry, &w);

	if (r >= 0)
		r = watch_find_mounts(c, w.dev);
	if (r < 0)
		return r;
	vec_for_each (m, &c->files->mounts) {
		_cleanup_(close_fd) int fd = -EBADF;
		uint64_t mount_is, dentry_is;

		if (m->dev != w.dev || m->fd < 0)
			continue;
		fd = open_by_handle_at(m->fd, w.handle, O_PATH | O_CLOEXEC);
		if (fd >= 0 && dentry_of(c->kernel, fd, &mount_is, &dentry_is) >= 0 &&
		    mount_is == mount && dentry_is == dentry)
			return take_fd(&fd);
	}
	return -ESTALE;
}
