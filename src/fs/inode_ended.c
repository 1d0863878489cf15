/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories of /proc about a task that has ended, in which nothing is found any more. Sandboxes
 * make one their root: a child that shares the directories of its parent (CLONE_FS) changes both
 * to /proc/self/fdinfo, and ends. They are made again in the same way, below another process.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/inode_private.h"
#include "kernel/clone.h"
#include "kernel/likeness.h"
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

static int own_namespace(const struct restart *r, int user)
{
	struct stat theirs, ours;

	return fstat(user, &theirs) == 0 && fstatat(r->proc_fd, "self/ns/user", &ours, 0) == 0 &&
	       theirs.st_ino == ours.st_ino;
}

/* Who makes such a directory his own must be permitted to look at the task (proc_fd_permission()):
 * he may be in a user namespace already. It ends when that is done. */
static int stand_in_for(struct restart *r, const struct restart_task *t, struct inode_open *inode,
			struct error *e)
{
	_cleanup_(close_fd) int user = procfs_open(r->proc_fd, O_RDONLY | O_CLOEXEC, e,
						   "%d/task/%d/ns/user", t->process->pid, t->tid);
	_cleanup_(close_fd) int root = (int)syscall(SYS_pidfd_open, r->processes.v[0].pid, 0);
	struct likeness like = {.space = r->pidns ? root : -1};
	_cleanup_(free_ptr) char *status = NULL;
	const char *uid, *gid;
	size_t len;
	ssize_t res;

	if (inode->stand_in > 0 && inode->stand_in_of == t->tid)
		return 0;
	if (user < 0)
		return user;
	res = procfs_read(r->proc_fd, &status, e, "%d/task/%d/status", t->process->pid, t->tid);
	if (res < 0)
		return (int)res;
	uid = proc_field(status, "Uid", &len);
	gid = proc_field(status, "Gid", &len);
	/* real, effective, saved, of the file system */
	if (!uid || !gid || sscanf(uid, "%*u %*u %*u %u", &like.uid) != 1 ||
	    sscanf(gid, "%*u %*u %*u %u", &like.gid) != 1)
		return error_set(e, -EINVAL, E_INTERNAL, "the ids of a task are not understood");
	like.user = own_namespace(r, user) ? -1 : user;
	if (inode->stand_in > 0)
		likeness_end(inode->stand_in);
	inode->stand_in_of = t->tid;
	inode->stand_in = likeness_begin(&like);
	return inode->stand_in > 0
		       ? 0
		       : error_errno(e, (int)inode->stand_in, E_RESTORE,
				     "cannot make a process for a directory of one that has ended");
}

static int open_ended(struct restart *r, struct inode_open *inode, const struct restart_task *t,
		      int *ret_fd, struct error *e)
{
	pid_t number;
	const char *rest = split(inode->msg->path, &number);
	int fd, res = stand_in_for(r, t, inode, e);
	struct rooted at;
	char path[4200];

	if (res < 0)
		return res;
	number = r->pidns ? tree_pid_at(r, inode->stand_in, inode->stand_in, 0) : inode->stand_in;
	snprintf(path, sizeof(path), PROC "%d%s", number, rest);
	at = rooted_path(restart_root(r, inode->msg->mounts), path);
	fd = openat(at.dir, at.path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return error_errno(e, -errno, E_FILE_OPEN, "cannot open %s", path);
	*ret_fd = fd;
	return 0;
}

int inode_open_directory(struct restart *r, uint64_t id, const struct restart_task *t, int *ret_fd,
			 struct error *e)
{
	struct inode_open *inode = inode_find(r, id);

	if (inode && inode->msg->kind == INODE_ENDED)
		return open_ended(r, inode, t, ret_fd, e);
	return inode_open(r, id, O_PATH | O_DIRECTORY, ret_fd, e);
}

void inodes_ended_finish(struct restart *r)
{
	vec_for_each (inode, &r->files->inodes) {
		if (inode->stand_in > 0)
			likeness_end(inode->stand_in);
		inode->stand_in = 0;
	}
}
