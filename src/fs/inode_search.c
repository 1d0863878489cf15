/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the path of an inode of which only the number is known: among the files that the tree
 * has open, the directories above them, and what is in these. The whole file system is not
 * searched.
 */
#include "fs/inode_search.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/context.h"

bool inode_is(int fd, dev_t dev, uint64_t ino)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_ino == ino && st.st_dev == dev;
}

static int try_path(const char *path, dev_t dev, uint64_t ino)
{
	int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0 && !inode_is(fd, dev, ino))
		close_fd(&fd);
	return fd;
}

/* An entry of a directory. */
static int open_in_directory(int dir, dev_t dev, uint64_t ino)
{
	_cleanup_(close_directory) DIR *d = NULL;
	int own = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;

	d = own < 0 ? NULL : fdopendir(own);
	if (!d)
		close_fd(&own);
	while (d && (entry = readdir(d))) {
		int fd;

		if (entry->d_ino != ino)
			continue;
		fd = openat(dirfd(d), entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && inode_is(fd, dev, ino))
			return fd;
		close_fd(&fd);
	}
	return -1;
}

int inode_search_directory(const char *path, dev_t dev, uint64_t ino)
{
	_cleanup_(close_fd) int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return dir < 0 ? -1 : open_in_directory(dir, dev, ino);
}

/* Files that the tree has open, and the directories above them. */
static int open_known(struct checkpoint *c, dev_t dev, uint64_t ino)
{
	vec_for_each (inode, &c->files->inodes) {
		char path[4096];
		char *slash;
		int fd = -1;

		if (inode->msg.kind != INODE_NAMED || strlen(inode->msg.path) >= sizeof(path))
			continue;
		strcpy(path, inode->msg.path);
		do {
			fd = try_path(path[0] ? path : "/", dev, ino);
			slash = strrchr(path, '/');
			if (slash)
				*slash = '\0';
		} while (fd < 0 && slash);
		if (fd >= 0)
			return fd;
	}
	return -1;
}

int inode_search(struct checkpoint *c, pid_t tid, dev_t dev, uint64_t ino)
{
	_cleanup_(close_fd) int cwd =
		procfs_open(c->proc_fd, O_PATH | O_DIRECTORY, NULL, "%d/cwd", tid);
	int fd = open_known(c, dev, ino);

	if (fd < 0 && cwd >= 0 && inode_is(cwd, dev, ino))
		return take_fd(&cwd);
	if (fd < 0 && cwd >= 0)
		fd = open_in_directory(cwd, dev, ino);
	for (size_t i = 0; i < c->files->inodes.n && fd < 0; i++) {
		const Reprise__Inode *msg = &c->files->inodes.v[i].msg;

		if (msg->kind == INODE_NAMED && S_ISDIR(msg->mode))
			fd = inode_search_directory(msg->path, dev, ino);
	}
	return fd;
}
