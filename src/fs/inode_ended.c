/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories of /proc about a task that has ended, in which nothing is found any more. Sandboxes
 * make one their root: a child that shares the directories of its parent (CLONE_FS) changes both
 * to /proc/self/fdinfo, and ends. They are made again in the same way, below a stand-in.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/inode_private.h"
#include "fs/stand_in.h"
#include "kernel/clone.h"
#include "ns/spaces.h"

#define PROC	"/proc/"
#define DELETED " (deleted)"

/* Whoever asks for its entries is told that the task is not there (get_proc_task()): to open
 * the directory one may have to be permitted to look at the task, see proc_fd_permission(). */
static bool is_ended(int fd)
{
	_cleanup_(close_fd) int dir = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char entries[1024];
	long n;

	if (dir < 0)
		return errno == ESRCH || errno == ENOENT;
	n = syscall(SYS_getdents64, dir, entries, sizeof(entries));
	return n < 0 && (errno == ESRCH || errno == ENOENT);
}

bool inode_is_of_ended_task(int fd, const struct stat *st, const char *link)
{
	return S_ISDIR(st->st_mode) && !strncmp(link, PROC, strlen(PROC)) &&
	       isdigit((unsigned char)link[strlen(PROC)]) && is_ended(fd);
}

int inode_ended_recognise(struct checkpoint *c, const struct stat *st, const char *link,
			  struct inode_entry *entry, struct error *e)
{
	size_t len = strlen(link), suffix = strlen(DELETED);
	char *path = scratch_alloc(&c->files->scratch, len + 1);

	/* The stand-in would have to be born in a namespace below. */
	if (space_of_proc(c, st->st_dev))
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "%s is about a task that has ended, in a pid namespace below that "
				 "of the first task",
				 link);
	if (!path)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	memcpy(path, link, len + 1);
	if (len > suffix && !strcmp(path + len - suffix, DELETED))
		path[len - suffix] = '\0';
	entry->msg.path = path;
	entry->msg.kind = INODE_ENDED;
	return 0;
}

/* ---- restart ---- */

/* The number, and what is behind it; NULL if it is no such path. */
static const char *split(const char *path, pid_t *ret_pid)
{
	char *end;
	long pid;

	if (strncmp(path, PROC, strlen(PROC)) || !isdigit((unsigned char)path[strlen(PROC)]))
		return NULL;
	pid = strtol(path + strlen(PROC), &end, 10);
	if (pid <= 0 || pid > INT32_MAX || (*end && *end != '/') || strstr(end, ".."))
		return NULL;
	*ret_pid = (pid_t)pid;
	return end;
}

int inode_ended_validate(const Reprise__Inode *msg, struct error *e)
{
	pid_t pid;

	return S_ISDIR(msg->mode) && split(msg->path, &pid)
		       ? 0
		       : error_set(e, -EBADMSG, E_IMAGE_INVALID,
				   "an improper directory of a task that has ended");
}

int inode_ended_open(struct restart *r, struct inode_open *inode, int flags, int *ret_fd,
		     struct error *e)
{
	pid_t wanted = 0, number;
	const char *rest = split(inode->msg->path, &wanted);
	struct rooted at;
	char path[4200];
	int fd;

	if (inode->stand_in <= 0)
		inode->stand_in = stand_in_begin(r, 0, wanted);
	if (inode->stand_in < 0)
		return error_errno(e, (int)inode->stand_in, E_RESTORE,
				   "cannot make a process that has ended");
	number = r->pidns ? tree_pid_at(r, inode->stand_in, inode->stand_in, 0) : inode->stand_in;
	snprintf(path, sizeof(path), PROC "%d%s", number, rest);
	at = rooted_path(restart_root(r, inode->msg->mounts), path);
	fd = openat(at.dir, at.path, flags | O_DIRECTORY | O_NOFOLLOW);
	if (fd < 0)
		return error_errno(e, -errno, E_FILE_OPEN, "cannot open %s", path);
	*ret_fd = fd;
	return 0;
}

void inodes_ended_finish(struct restart *r)
{
	vec_for_each (inode, &r->files->inodes) {
		if (inode->stand_in > 0)
			stand_in_end(inode->stand_in);
		inode->stand_in = 0;
	}
}
