/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inodes that are watched. The kernel tells an inode and a file handle, from which the
 * path has to be found again: by open_by_handle_at(2) where that is permitted, else
 * among the files that the tree has open.
 */
#include "fs/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/fdinfo.h"
#include "fs/inode_search.h"

#define QUEUE_MAX (1 << 22) /* events, of some 50 bytes each */

static_assert(sizeof(struct file_handle) + MAX_HANDLE_SZ <= sizeof(((struct watch_inode *)0)->room),
	      "room for the longest handle");

dev_t watch_dev(unsigned int kernel)
{
	return makedev(kernel >> 20, kernel & 0xfffff);
}

int watch_parse_handle(const char *line, struct watch_inode *w)
{
	const char *end = strchrnul(line, '\n');
	const char *hex = strstr(line, "f_handle:");
	const char *at = strstr(line, "fhandle-bytes:");
	unsigned int bytes, type, n = 0;

	w->handle = NULL;
	if (!at || !hex || at > end || hex > end ||
	    sscanf(at, "fhandle-bytes:%x fhandle-type:%x", &bytes, &type) != 2)
		return 0;
	if (bytes > MAX_HANDLE_SZ)
		return -EINVAL;
	w->handle = (struct file_handle *)w->room;
	w->handle->handle_bytes = bytes;
	w->handle->handle_type = (int)type;
	for (hex += strlen("f_handle:"); n < bytes; n++, hex += 2)
		if (sscanf(hex, "%2hhx", &w->handle->f_handle[n]) != 1)
			return -EINVAL;
	return 0;
}

static int open_mount(const char *point, dev_t dev)
{
	int fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_dev != dev))
		close_fd(&fd);
	return fd;
}

/* Below a mount of a part of the file system, a file elsewhere has no path. */
static bool has_path(struct checkpoint *c, int fd)
{
	_cleanup_(free_ptr) char *link = NULL;
	struct stat there, here;

	return procfs_readlink(c->proc_fd, &link, NULL, "self/fd/%d", fd) >= 0 &&
	       lstat(link, &there) == 0 && fstat(fd, &here) == 0 && there.st_ino == here.st_ino &&
	       there.st_dev == here.st_dev;
}

int watch_find_mounts(struct checkpoint *c, dev_t dev)
{
	_cleanup_(free_ptr) char *text = NULL;
	struct mount_seen *last;

	vec_for_each (m, &c->files->mounts)
		if (m->dev == dev)
			return 0;
	if (procfs_read(c->proc_fd, &text, NULL, "self/mountinfo") < 0)
		return -1;
	for (const char *line = text; *line; fdinfo_skip_line(&line)) {
		_cleanup_(close_fd) int fd = -1;
		struct mount_seen *m;
		unsigned int ma, mi;
		char point[4096];

		if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &ma, &mi, point) != 3 ||
		    makedev(ma, mi) != dev)
			continue;
		fd = open_mount(point, dev);
		m = fd < 0 ? NULL : vec_push(&c->files->mounts);
		if (m)
			*m = (struct mount_seen){dev, take_fd(&fd)};
	}
	last = vec_push(&c->files->mounts);
	if (last)
		*last = (struct mount_seen){dev, -1};
	return last ? 0 : -1;
}

/* Through the first mount of its device that shows it; else through any. */
static int open_by_handle(struct checkpoint *c, struct watch_inode *w)
{
	int any = -1;

	if (!w->handle || watch_find_mounts(c, w->dev) < 0)
		return -1;
	vec_for_each (m, &c->files->mounts) {
		_cleanup_(close_fd) int fd = -1;

		if (m->dev != w->dev || m->fd < 0)
			continue;
		fd = open_by_handle_at(m->fd, w->handle, O_PATH | O_CLOEXEC);
		if (fd < 0 || !inode_is(fd, w->dev, w->ino))
			continue;
		if (has_path(c, fd)) {
			close_fd(&any);
			return take_fd(&fd);
		}
		if (any < 0)
			any = take_fd(&fd);
	}
	return any;
}

int watch_open_handle(struct checkpoint *c, const struct watch_inode *w)
{
	if (watch_find_mounts(c, w->dev) < 0)
		return -1;
	vec_for_each (m, &c->files->mounts) {
		int fd = m->dev == w->dev && m->fd >= 0
				 ? open_by_handle_at(m->fd, w->handle, O_PATH | O_CLOEXEC)
				 : -1;

		if (fd >= 0 && has_path(c, fd))
			return fd;
		close_fd(&fd);
	}
	return -1;
}

/* Numbers of kernfs never come again: who has gone is no longer found (kernfs_fh_to_dentry()). */
bool watch_is_gone(struct checkpoint *c, const struct watch_inode *w)
{
	if (!w->handle || w->handle->handle_type != FILEID_KERNFS ||
	    watch_find_mounts(c, w->dev) < 0)
		return false;
	vec_for_each (m, &c->files->mounts)
		if (m->dev == w->dev && m->fd >= 0) {
			_cleanup_(close_fd) int fd =
				open_by_handle_at(m->fd, w->handle, O_PATH | O_CLOEXEC);

			return fd < 0 && errno == ESTALE;
		}
	return false;
}

int watch_save(struct checkpoint *c, const struct file_entry *f, struct watch_inode *w,
	       const char *what, uint64_t *ret_inode, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	_cleanup_(free_ptr) char *link = NULL;
	int r;

	/* One without a name is known by device and number alone: see identify(). */
	*ret_inode = objects_find(c->objects, RECORD_INODE, w->dev, w->ino);
	if (*ret_inode)
		return 0;
	fd = open_by_handle(c, w);
	if (fd < 0)
		fd = watch_overlay_open(c, w);
	if (fd < 0)
		fd = inode_search(c, f->tid, w->dev, w->ino);
	if (fd < 0)
		return error_set(e, -ESTALE, E_FILE_STATE,
				 "%s is on inode %llu of device %u:%u, whose path cannot be found",
				 what, (unsigned long long)w->ino, major(w->dev), minor(w->dev));
	r = procfs_readlink(c->proc_fd, &link, e, "self/fd/%d", fd);
	return r < 0 ? r : inode_checkpoint(c, NULL, fd, link, ret_inode, e);
}

int watch_open(struct restart *r, uint64_t inode, int *ret_fd, char *path, size_t size,
	       struct error *e)
{
	int res = inode_open(r, inode, O_PATH | O_NOFOLLOW, ret_fd, e);

	if (res >= 0)
		snprintf(path, size, "self/fd/%d", *ret_fd);
	return res;
}

int watch_make_fs(void)
{
	_cleanup_(close_fd) int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
	int fd;

	if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	fd = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

int watch_queue_limit(const struct restart *r, const char *what, uint64_t *ret, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	ssize_t n = procfs_read(r->proc_fd, &text, e, "sys/fs/%s/max_queued_events", what);

	if (n < 0)
		return (int)n;
	*ret = strtoull(text, NULL, 10);
	if (*ret > QUEUE_MAX)
		return error_set(e, -E2BIG, E_RESTORE,
				 "its queue would have to be filled, which is too long: lower "
				 "/proc/sys/fs/%s/max_queued_events (%llu) for the moment",
				 what, (unsigned long long)*ret);
	return 0;
}

const char *watch_name(const struct restart *r, uint64_t inode)
{
	const Reprise__Inode *msg = restart_find(r, RECORD_INODE, inode);

	return msg->path;
}
