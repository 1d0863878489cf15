/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that were removed while they were open. They are made again under the
 * name that they had, opened and removed at once, so that even the link texts in /proc are the
 * same. Where that name is in use by now, a name beside it is taken; where the directory cannot be
 * written or has gone, a file without a name in /tmp or in memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "fs/inode_private.h"

/* The inode at `path`, made by us: a descriptor of it, or a negative errno. */
static int make_at(const char *path, mode_t mode)
{
	int fd;

	if (S_ISREG(mode)) {
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		return fd < 0 ? -errno : fd;
	}
	if (S_ISDIR(mode) ? mkdir(path, 0700) < 0 : mkfifo(path, 0600) < 0)
		return -errno;
	fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int make_unlinked(const char *path, mode_t mode)
{
	int fd = make_at(path, mode);

	if (fd < 0)
		return fd;
	if (S_ISDIR(mode) ? rmdir(path) < 0 : unlink(path) < 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

static int make_beside(const char *path, mode_t mode, uint64_t id)
{
	char name[4200];

	snprintf(name, sizeof(name), "%s.reprise-%d-%llu", path, (int)getpid(),
		 (unsigned long long)id);
	return make_unlinked(name, mode);
}

/* Only what has contents can be anywhere. */
static int make_elsewhere(mode_t mode)
{
	int fd = -EOPNOTSUPP;

	if (!S_ISREG(mode))
		return fd;
	fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = memfd_create("deleted", MFD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int inode_deleted_restart(struct restart *r, struct inode_open *inode, struct error *e)
{
	const Reprise__Inode *msg = inode->msg;
	int fd = make_unlinked(msg->path, msg->mode), first = fd;

	if (fd == -EEXIST)
		fd = make_beside(msg->path, msg->mode, inode->id);
	if (fd < 0) {
		restart_trace(r, "%s cannot be made again in its directory: %s", msg->path,
			      strerrordesc_np(-fd));
		fd = make_elsewhere(msg->mode);
	}
	if (fd < 0)
		return error_errno(e, first, E_RESTORE, "cannot make the deleted %s %s again",
				   S_ISDIR(msg->mode) ? "directory" : "file", msg->path);
	inode->fd = fd;
	return inode_contents_restart(r, inode, e);
}
