/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inodes of an overlay by their handle. An overlay opens none unless it was mounted with
 * nfs_export, but the handle that it shows (since 6.6, ovl_encode_fh()) holds the one of
 * the file below: struct ovl_fh of fs/overlayfs/overlayfs.h, which also stands on disks. That one
 * can be opened in the directory of which the overlay is made, and its path there is its path in
 * the overlay.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/fdinfo.h"
#include "fs/watch.h"

#define OVL_FILEID_V1 0xf8
#define OVL_FH_MAGIC  0xfb
#ifndef AT_HANDLE_FID
#define AT_HANDLE_FID 0x200 /* 6.5 */
#endif

struct overlay_handle {
	uint8_t padding[3], version, magic, length, flags, type, uuid[16];
};

struct any_handle {
	struct file_handle h;
	char room[MAX_HANDLE_SZ];
};

static bool real_handle(const struct file_handle *h, struct any_handle *ret)
{
	struct overlay_handle o;
	size_t n;

	if (!h || h->handle_type != OVL_FILEID_V1 || h->handle_bytes <= sizeof(o))
		return false;
	memcpy(&o, h->f_handle, sizeof(o));
	n = h->handle_bytes - sizeof(o);
	/* The length counts from behind the padding. */
	if (o.magic != OVL_FH_MAGIC || o.length + sizeof(o.padding) < sizeof(o) ||
	    o.length + sizeof(o.padding) - sizeof(o) > n)
		return false;
	n = o.length + sizeof(o.padding) - sizeof(o);
	ret->h.handle_bytes = (unsigned int)n;
	ret->h.handle_type = o.type;
	memcpy(ret->h.f_handle, h->f_handle + sizeof(o), n);
	return true;
}

/* The path of what lies below a directory, from there: both on one mount that may have no place in
 * our namespace, but is somewhere. */
static int path_below(struct checkpoint *c, int dir_fd, int fd, char **ret)
{
	_cleanup_(free_ptr) char *dir = NULL, *path = NULL;
	size_t len;

	if (procfs_readlink(c->proc_fd, &dir, NULL, "self/fd/%d", dir_fd) < 0 ||
	    procfs_readlink(c->proc_fd, &path, NULL, "self/fd/%d", fd) < 0)
		return -ENOENT;
	len = strcmp(dir, "/") ? strlen(dir) : 0;
	if (strncmp(path, dir, len) != 0 || path[len] != '/')
		return -ENOENT;
	*ret = strdup(path + len);
	return *ret ? 0 : -ENOMEM;
}

static bool has_handle(int fd, const struct file_handle *h)
{
	struct any_handle own = {.h.handle_bytes = MAX_HANDLE_SZ};
	int mount;

	return name_to_handle_at(fd, "", &own.h, &mount, AT_EMPTY_PATH | AT_HANDLE_FID) == 0 &&
	       own.h.handle_type == h->handle_type && own.h.handle_bytes == h->handle_bytes &&
	       !memcmp(own.h.f_handle, h->f_handle, h->handle_bytes);
}

/* Through a mount of the overlay, or of a part of it. */
static int open_mounted(struct checkpoint *c, const struct watch_inode *w, const char *path)
{
	_cleanup_(free_ptr) char *text = NULL;

	if (procfs_read(c->proc_fd, &text, NULL, "self/mountinfo") < 0)
		return -1;
	for (const char *line = text; *line; fdinfo_skip_line(&line)) {
		char root[2048], point[2048], full[2048 + 4096];
		_cleanup_(close_fd) int fd = -EBADF;
		unsigned int ma, mi;
		size_t len;

		if (sscanf(line, "%*d %*d %u:%u %2047s %2047s", &ma, &mi, root, point) != 4 ||
		    makedev(ma, mi) != w->dev)
			continue;
		len = strcmp(root, "/") ? strlen(root) : 0;
		if (strncmp(path, root, len) != 0 || (path[len] && path[len] != '/'))
			continue;
		snprintf(full, sizeof(full), "%s%s", strcmp(point, "/") ? point : "", path + len);
		fd = open(full, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && has_handle(fd, w->handle))
			return take_fd(&fd);
	}
	return -1;
}

int watch_overlay_open(struct checkpoint *c, const struct watch_inode *w)
{
	const struct overlay_parts *parts = c->mounts ? c->mounts->overlays : NULL;
	struct any_handle real;

	if (!parts || !real_handle(w->handle, &real))
		return -1;
	vec_for_each (part, parts) {
		_cleanup_(close_fd) int below = -EBADF;
		_cleanup_(free_ptr) char *path = NULL;
		int fd;

		if (part->dev != w->dev)
			continue;
		below = open_by_handle_at(part->dir_fd, &real.h, O_PATH | O_CLOEXEC);
		if (below < 0 || path_below(c, part->dir_fd, below, &path) < 0)
			continue;
		fd = open_mounted(c, w, path);
		if (fd >= 0)
			return fd;
	}
	return -1;
}
