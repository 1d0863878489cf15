/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches of inotify. The kernel tells an inode and a file handle, from which the
 * path has to be found again: by open_by_handle_at(2) where that is permitted, else
 * among the files that the tree has open.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/fdinfo.h"
#include "fs/file_kinds.h"

static bool inotify_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:inotify") || !strcmp(f->link, "anon_inode:[inotify]");
}

struct watch {
	unsigned int wd, mask;
	uint64_t ino;
	dev_t dev;
	struct file_handle *handle; /* followed by its bytes */
	char room[sizeof(struct file_handle) + MAX_HANDLE_SZ] __attribute__((aligned(8)));
};

/* include/linux/kdev_t.h: 20 bits of minor number. */
static dev_t decode_dev(unsigned int kernel)
{
	return makedev(kernel >> 20, kernel & 0xfffff);
}

static int parse_handle(const char *line, struct watch *w)
{
	unsigned int bytes, type, n = 0;
	const char *hex = strstr(line, "f_handle:");
	const char *at = strstr(line, "fhandle-bytes:");

	w->handle = NULL;
	if (!at || !hex || sscanf(at, "fhandle-bytes:%x fhandle-type:%x", &bytes, &type) != 2)
		return 0; /* a file system without handles */
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

/* fs/notify/fdinfo.c: "inotify wd:1 ino:2f sdev:fe00000 mask:fc6 ignored_mask:0 fhandle-bytes:8
 * ...". */
static int parse_watch(const char *line, struct watch *w)
{
	unsigned int sdev;

	if (sscanf(line, "inotify wd:%x ino:%" SCNx64 " sdev:%x mask:%x", &w->wd, &w->ino, &sdev,
		   &w->mask) != 4)
		return -EINVAL;
	w->dev = decode_dev(sdev);
	return parse_handle(line, w);
}

static bool is_watched(int fd, const struct watch *w)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_ino == w->ino && st.st_dev == w->dev;
}

/* Some mount point of the device, through which a handle of it can be opened. */
static int open_mount_of(struct checkpoint *c, dev_t dev)
{
	_cleanup_(free_ptr) char *text = NULL;
	const char *line;

	if (procfs_read(c->proc_fd, &text, NULL, "self/mountinfo") < 0)
		return -1;
	for (line = text; *line; fdinfo_skip_line(&line)) {
		unsigned int ma, mi;
		char point[4096];
		struct stat st;
		int fd;

		if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &ma, &mi, point) != 3 ||
		    makedev(ma, mi) != dev)
			continue;
		fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == dev)
			return fd;
		close_fd(&fd);
	}
	return -1;
}

static int open_by_handle(struct checkpoint *c, struct watch *w)
{
	_cleanup_(close_fd) int mount = w->handle ? open_mount_of(c, w->dev) : -1;
	int fd;

	if (mount < 0)
		return -1;
	fd = open_by_handle_at(mount, w->handle, O_PATH | O_CLOEXEC);
	if (fd >= 0 && !is_watched(fd, w))
		close_fd(&fd);
	return fd;
}

static int try_path(const char *path, const struct watch *w)
{
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd >= 0 && !is_watched(fd, w))
		close_fd(&fd);
	return fd;
}

/* An entry of a directory. */
static int open_in_directory(int dir, const struct watch *w)
{
	_cleanup_(close_directory) DIR *d = NULL;
	int own = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;

	d = own < 0 ? NULL : fdopendir(own);
	if (!d)
		close_fd(&own);
	while (d && (entry = readdir(d))) {
		int fd;

		if (entry->d_ino != w->ino)
			continue;
		fd = openat(dirfd(d), entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && is_watched(fd, w))
			return fd;
		close_fd(&fd);
	}
	return -1;
}

/* The working directory, those that are watched or open, and what is in them. */
static int open_nearby(struct checkpoint *c, const struct file_seen *f, const struct watch *w)
{
	_cleanup_(close_fd) int cwd =
		procfs_open(c->proc_fd, O_PATH | O_DIRECTORY, NULL, "%d/cwd", f->tid);
	int fd = -1;

	if (cwd >= 0 && is_watched(cwd, w))
		return take_fd(&cwd);
	if (cwd >= 0)
		fd = open_in_directory(cwd, w);
	for (size_t i = 0; i < c->files->inodes.n && fd < 0; i++) {
		const Reprise__Inode *msg = &c->files->inodes.v[i].msg;
		_cleanup_(close_fd) int dir = -EBADF;

		if (msg->kind != INODE_NAMED || !S_ISDIR(msg->mode))
			continue;
		dir = open(msg->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir >= 0)
			fd = open_in_directory(dir, w);
	}
	return fd;
}

/* Files that the tree has open, and the directories above them. */
static int open_known(struct checkpoint *c, const struct watch *w)
{
	vec_for_each (inode, &c->files->inodes) {
		char path[4096];
		char *slash;
		int fd = -1;

		if (inode->msg.kind != INODE_NAMED || strlen(inode->msg.path) >= sizeof(path))
			continue;
		strcpy(path, inode->msg.path);
		do {
			fd = try_path(path[0] ? path : "/", w);
			slash = strrchr(path, '/');
			if (slash)
				*slash = '\0';
		} while (fd < 0 && slash);
		if (fd >= 0)
			return fd;
	}
	return -1;
}

static int save_watch(struct checkpoint *c, const struct file_seen *f, struct watch *w,
		      Reprise__InotifyWatch *m, struct error *e)
{
	_cleanup_(close_fd) int fd = open_by_handle(c, w);
	_cleanup_(free_ptr) char *link = NULL;
	int r;

	if (fd < 0)
		fd = open_known(c, w);
	if (fd < 0)
		fd = open_nearby(c, f, w);
	if (fd < 0)
		return error_set(e, -ESTALE, E_FILE_STATE,
				 "its watch %u is on inode %llu of device %u:%u, whose path cannot "
				 "be found",
				 w->wd, (unsigned long long)w->ino, major(w->dev), minor(w->dev));
	r = procfs_readlink(c->proc_fd, &link, e, "self/fd/%d", fd);
	if (r < 0)
		return r;
	m->wd = (int32_t)w->wd;
	m->mask = w->mask;
	if (strstr(link, " (deleted)"))
		return error_set(e, -ESTALE, E_FILE_STATE, "it watches %s", link);
	return inode_checkpoint(c, f->process, fd, link, &m->inode, e);
}

static int save_watches(struct checkpoint *c, const struct file_seen *f, Reprise__Inotify *m,
			struct scratch *s, struct error *e)
{
	VEC(Reprise__InotifyWatch *) list = {};
	const char *text = f->fdinfo;
	int r = 0;

	for (; r >= 0 && fdinfo_find_line(&text, "inotify "); fdinfo_skip_line(&text)) {
		Reprise__InotifyWatch *x =
			scratch_message(s, Reprise__InotifyWatch, reprise__inotify_watch__init);
		Reprise__InotifyWatch **slot = vec_push(&list);
		struct watch w;

		if (!x || !slot)
			r = error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a watch");
		else if (parse_watch(text, &w) < 0)
			r = error_set(e, -EINVAL, E_SYSTEM, "its fdinfo is not understood");
		else
			r = save_watch(c, f, &w, *slot = x, e);
	}
	if (r >= 0) {
		m->watches = scratch_copy(s, list.v, list.n * sizeof(*list.v));
		m->n_watches = list.n;
		if (!m->watches)
			r = error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for watches");
	}
	vec_free(&list);
	return r;
}

static int inotify_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			      struct scratch *scratch, struct error *e)
{
	int queued = 0;

	msg->inotify = scratch_message(scratch, Reprise__Inotify, reprise__inotify__init);
	if (!msg->inotify)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an inotify instance");
	if (ioctl(f->local, FIONREAD, &queued) < 0)
		return error_errno(e, -errno, E_SYSTEM, "FIONREAD");
	/* They could only be taken away, and there is no way to put them back. */
	if (queued && !c->checking)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "it holds events that have not been read yet; try again");
	return save_watches(c, f, msg->inotify, scratch, e);
}

/* ---- restart ---- */

static int inotify_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->inotify)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an inotify without its message");
	for (size_t i = 0; i < msg->inotify->n_watches; i++) {
		int res = inode_validate(r, msg->inotify->watches[i]->inode, e);

		if (res < 0)
			return res;
		if (msg->inotify->watches[i]->wd < 1)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a watch without number");
	}
	return 0;
}

static int add_watch(struct restart *r, int fd, const Reprise__InotifyWatch *m, struct error *e)
{
	const Reprise__Inode *inode = restart_find(r, RECORD_INODE, m->inode);
	int wd;

	if (ioctl(fd, INOTIFY_IOC_SETNEXTWD, m->wd) < 0)
		return error_errno(e, -errno, E_KERNEL_TOO_OLD,
				   "cannot choose the number of a watch");
	wd = inotify_add_watch(fd, inode->path, m->mask);
	if (wd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot watch %s", inode->path);
	if (wd != m->wd)
		return error_set(e, -EEXIST, E_RESTORE, "watch %d became %d", m->wd, wd);
	return 0;
}

static int inotify_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			   struct error *e)
{
	_cleanup_(close_fd) int fd = inotify_init1(IN_CLOEXEC);

	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make an inotify instance");
	for (size_t i = 0; i < msg->inotify->n_watches; i++) {
		int res = add_watch(r, fd, msg->inotify->watches[i], e);

		if (res < 0)
			return res;
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

static void inotify_describe(const Reprise__File *msg, char *buf, size_t size)
{
	snprintf(buf, size, "%zu watches", msg->inotify ? msg->inotify->n_watches : 0);
}

const struct file_ops inotify_file_ops = {
	.kind = FILE_INOTIFY,
	.name = "inotify",
	.support = "watches with their numbers; unread events are refused",
	.match = inotify_match,
	.checkpoint = inotify_checkpoint,
	.validate = inotify_validate,
	.restart = inotify_restart,
	.describe = inotify_describe,
};
