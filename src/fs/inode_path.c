/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that have a name, or had one.
 *
 * At the checkpoint: the kernel names a file by the path that it has now (d_path()), and puts "
 * (deleted)" behind it when the name was removed. Neither can be trusted blindly: a name may end
 * like that, and something may have been mounted over the path. So the path counts if it leads to
 * the same inode.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/nfs.h"
#include "core/procfs.h"
#include "fs/inode_private.h"
#include "ns/mounts_covered.h"
#include "ns/mounts_detached.h"
#include "ns/spaces.h"

#ifndef SYSFS_MAGIC
#define SYSFS_MAGIC 0x62656572
#endif

#define DELETED_SUFFIX " (deleted)"

static bool leads_to(const struct inode_entry *entry, const char *path, const struct stat *st)
{
	struct rooted at = rooted_path(entry->root, path + entry->skip);
	int flags = AT_SYMLINK_NOFOLLOW;
	struct stat here;

	/* of what is mounted on a file */
	if ((entry->skip && !path[entry->skip]) ||
	    (entry->msg.detached && !strcmp(path, "/") && !S_ISDIR(st->st_mode))) {
		at.path = "";
		flags |= AT_EMPTY_PATH;
	}
	return path[0] == '/' && fstatat(at.dir, at.path, &here, flags) == 0 &&
	       here.st_dev == st->st_dev && here.st_ino == st->st_ino &&
	       ((here.st_mode ^ st->st_mode) & S_IFMT) == 0;
}

/* Sizes and times of files there are made up on the spot. */
static bool is_pseudo(const struct device_seen *fs)
{
	static const unsigned int types[] = {PROC_SUPER_MAGIC,	  SYSFS_MAGIC,	 CGROUP_SUPER_MAGIC,
					     CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC,
					     SECURITYFS_MAGIC,	  BPF_FS_MAGIC,	 BINFMTFS_MAGIC};
	if (!fs)
		return false;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (fs->type == types[i])
			return true;
	return false;
}

static int set_path(struct checkpoint *c, struct inode_entry *entry, const char *path, size_t len,
		    enum inode_kind kind, struct error *e)
{
	char *copy = scratch_alloc(&c->files->scratch, len + 1);

	if (!copy)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	memcpy(copy, path, len);
	entry->msg.path = copy;
	entry->msg.kind = kind;
	return 0;
}

/* A directory of /proc about a task: it comes and goes with the task. */
static int check_task(struct checkpoint *c, const char *link, const struct device_seen *fs,
		      struct error *e)
{
	int pid;

	if (!fs || fs->type != PROC_SUPER_MAGIC || sscanf(link, "/proc/%d", &pid) != 1)
		return 0;
	if (space_of_proc(c, fs->dev))
		pid = pid_space_task(c, space_of_proc(c, fs->dev), pid);
	if (checkpoint_has_task(c, pid))
		return checkpoint_refer(c, pid, e);
	return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
			 "%s is about a task outside the tree, or one that has ended", link);
}

static int recognise_deleted(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			     size_t len, struct inode_entry *entry, struct error *e)
{
	char *path = scratch_alloc(&c->files->scratch, len + 1);

	if (!path)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	memcpy(path, link, len);
	/* Removed and linked again: another dentry. */
	if (leads_to(entry, path, st))
		return set_path(c, entry, path, len, INODE_NAMED, e);
	return inode_deleted_recognise(c, fd, st, link, path, entry, e);
}

/* On a mount that is attached nowhere, and of which nobody has a directory. */
static int recognise_alone(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			   size_t len, struct inode_entry *entry, struct error *e)
{
	const size_t suffix = strlen(DELETED_SUFFIX);

	if (!st->st_nlink && len > suffix && !strcmp(link + len - suffix, DELETED_SUFFIX))
		return recognise_deleted(c, fd, st, link, len - suffix, entry, e);
	if (!st->st_nlink || (!S_ISREG(st->st_mode) && !S_ISFIFO(st->st_mode)))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it is on a mount that is attached nowhere, no directory of that "
				 "is open, and it is a special file");
	entry->msg.alone = true;
	return set_path(c, entry, link, len, INODE_DELETED, e);
}

/* Its name goes with whoever has it open: a restart would not find it. */
static int recognise_on_nfs(struct checkpoint *c, const struct stat *st, const char *path,
			    struct inode_entry *entry, struct error *e)
{
	if (st->st_nlink > 1 && c->deleted != DELETED_SAVE)
		return error_set(e, -EBUSY, E_FILE_LINKED,
				 "%s was removed, but the file has another name (hard link) that "
				 "is not known",
				 path);
	return set_path(c, entry, path, strlen(path), INODE_DELETED, e);
}

int inode_path_recognise(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			 struct inode_entry *entry, struct error *e)
{
	size_t len = strlen(link), suffix = strlen(DELETED_SUFFIX);
	const struct device_seen *fs = inode_device(c, fd, st);
	int r;

	if (entry->msg.detached && entry->root < 0)
		return recognise_alone(c, fd, st, link, len, entry, e);
	if (nfs_is_removed(fd, link) && (S_ISREG(st->st_mode) || S_ISFIFO(st->st_mode)))
		return recognise_on_nfs(c, st, link, entry, e);
	if (leads_to(entry, link, st)) {
		entry->msg.pseudo = is_pseudo(fs);
		r = check_task(c, link, fs, e);
		return r < 0 ? r : set_path(c, entry, link, len, INODE_NAMED, e);
	}
	if (fs && fs->type == PROC_SUPER_MAGIC && inode_is_of_ended_task(fd, st, link))
		return inode_ended_recognise(c, st, link, entry, e);
	if (fs && fs->type == SECRETMEM_MAGIC)
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "it is memory of memfd_secret(), which nobody else can read");
	if (is_pseudo(fs))
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"%s is not found by its path (it was removed, or something is mounted "
			"over it), and nobody but the kernel could make it",
			link);
	if (link[0] == '/' && len > suffix && !strcmp(link + len - suffix, DELETED_SUFFIX))
		return recognise_deleted(c, fd, st, link, len - suffix, entry, e);
	if (link[0] == '/' && st->st_nlink == 0)
		return recognise_deleted(c, fd, st, link, len, entry, e);
	return error_set(
		e, -ESTALE, E_FILE_STATE,
		"the path %s does not lead to the file: something is mounted over it, or it "
		"belongs to another mount namespace",
		link);
}

/* As a task is told of it, or we are: "thread-self". Of one that has ended nothing is known. */
static bool is_mounted(const struct checkpoint *c, int mount, const char *whose)
{
	_cleanup_(free_ptr) char *text = NULL;
	char *line, *rest;

	if (procfs_read(c->proc_fd, &text, NULL, "%s/mountinfo", whose) < 0)
		return true;
	for (rest = text; (line = strsep(&rest, "\n"));)
		if (atoi(line) == mount)
			return true;
	return false;
}

int inode_refuse_foreign(struct checkpoint *c, pid_t tid, int fd, const char *link, struct error *e)
{
	int is = mount_id_at(fd, "", AT_EMPTY_PATH);
	struct stat st;
	char whose[16];

	snprintf(whose, sizeof(whose), "%d", tid);
	/* Nothing leads there any more; but its mount is there. */
	if (fstat(fd, &st) == 0 && inode_is_of_ended_task(fd, &st, link))
		link = "/proc";
	/* A task that has changed its root directory is not told of what is outside of it, nor, if
	 * that was removed, of anything. */
	if (!is || is == mount_id_at(AT_FDCWD, link, AT_SYMLINK_NOFOLLOW) ||
	    space_of_mount(c, is) || mount_of_file(c, fd, 0) || is_mounted(c, is, whose) ||
	    is_mounted(c, is, "thread-self") || mount_is_nowhere(c, fd))
		return 0;
	return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
			 "it is on a mount of another mount namespace outside the tree, or on one "
			 "that is attached nowhere (unmounted lazily)");
}

/* ---- restart ---- */

static const char *type_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "file";
	case S_IFDIR:
		return "directory";
	case S_IFCHR:
		return "character device";
	case S_IFBLK:
		return "block device";
	case S_IFIFO:
		return "fifo";
	case S_IFLNK:
		return "symbolic link";
	case S_IFSOCK:
		return "socket";
	default:
		return "object of unknown type";
	}
}

/* What differs, in words; false if nothing does. */
static bool differs(const Reprise__Inode *msg, const struct stat *st, char *buf, size_t size)
{
	if ((st->st_mode ^ msg->mode) & S_IFMT) {
		snprintf(buf, size, "it was a %s and is a %s", type_name(msg->mode),
			 type_name(st->st_mode));
		return true;
	}
	if (S_ISCHR(msg->mode) || S_ISBLK(msg->mode)) {
		snprintf(buf, size, "it was device %u:%u and is %u:%u", major(msg->rdev),
			 minor(msg->rdev), major(st->st_rdev), minor(st->st_rdev));
		return msg->rdev != st->st_rdev;
	}
	if (!S_ISREG(msg->mode) || msg->pseudo || msg->output)
		return false;
	if (msg->size != (uint64_t)st->st_size) {
		snprintf(buf, size, "its size was %llu and is %llu", (unsigned long long)msg->size,
			 (unsigned long long)st->st_size);
		return true;
	}
	if (msg->mtime_sec != st->st_mtim.tv_sec || msg->mtime_nsec != st->st_mtim.tv_nsec) {
		snprintf(buf, size, "it was modified %s the checkpoint",
			 st->st_mtim.tv_sec < msg->mtime_sec ? "last at another time before"
							     : "after");
		return true;
	}
	if (msg->ino != st->st_ino && !msg->brought) {
		snprintf(buf, size, "its inode was %llu and is %llu", (unsigned long long)msg->ino,
			 (unsigned long long)st->st_ino);
		return true;
	}
	return false;
}

int inode_root(const struct restart *r, const Reprise__Inode *msg, const char **path)
{
	*path = msg->path;
	if (msg->detached)
		return restart_root_detached(r, msg->detached);
	return restart_root_under(r, msg->mounts, msg->under, path);
}

/* A file on which another one is mounted is the place itself. */
static struct rooted inode_place(const struct restart *r, const Reprise__Inode *msg)
{
	const char *path = msg->path;
	const int root = inode_root(r, msg, &path);

	if (((msg->under && !*path) || (msg->detached && !strcmp(path, "/"))) &&
	    !S_ISDIR(msg->mode))
		return (struct rooted){root, ""};
	return rooted_path(root, path);
}

int inode_named_check(struct restart *r, struct inode_open *inode, struct error *e)
{
	const Reprise__Inode *msg = inode->msg;
	const struct rooted where = inode_place(r, msg);
	struct error warning = {};
	struct stat st;
	char what[256];

	if (fstatat(where.dir, where.path, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0) {
		/* Files of tasks appear with the tasks. */
		if (msg->pseudo && (errno == ENOENT || errno == ENOTDIR))
			return 0;
		if (errno == ENOENT || errno == ENOTDIR)
			return error_set(e, -ENOENT, E_FILE_MISSING, "%s is not there any more",
					 msg->path);
		return error_errno(e, -errno, E_FILE_OPEN, "cannot look at %s", msg->path);
	}
	/* The tasks may get a /proc of their own, and sockets are bound anew. */
	inode->dev = st.st_dev;
	inode->ino = st.st_ino;
	inode->checked = !msg->pseudo && !S_ISSOCK(msg->mode);
	if (!differs(msg, &st, what, sizeof(what)))
		return 0;
	/* Another type cannot be opened in its place, whatever the user allows. */
	if (!r->changed_files_allowed || ((st.st_mode ^ msg->mode) & S_IFMT))
		return error_set(e, -ESTALE, E_FILE_CHANGED, "%s has changed: %s", msg->path, what);
	error_set(&warning, -ESTALE, E_FILE_CHANGED, "%s has changed: %s", msg->path, what);
	if (r->warn)
		r->warn(r->warn_arg, &warning);
	return 0;
}

int inode_named_open(struct restart *r, const struct inode_open *inode, int flags, int *ret_fd,
		     struct error *e)
{
	const char *path = inode->msg->path;
	const struct rooted where = inode_place(r, inode->msg);
	/*
	 * First without effect, to see that it is the file that was checked; then
	 * through the descriptor, so that nobody can put another in its place.
	 */
	_cleanup_(close_fd) int at =
		*where.path ? openat(where.dir, where.path, O_PATH | O_NOFOLLOW | O_CLOEXEC)
			    : fcntl(where.dir, F_DUPFD_CLOEXEC, 3);
	struct stat st;
	int fd;

	if (at < 0)
		return error_errno(e, -errno, errno == ENOENT ? E_FILE_MISSING : E_FILE_OPEN,
				   "cannot open %s", path);
	if (fstat(at, &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat of %s", path);
	if (inode->checked && (st.st_dev != inode->dev || st.st_ino != inode->ino))
		return error_set(e, -ESTALE, E_FILE_CHANGED, "%s was replaced during the restart",
				 path);
	if (!*where.path)
		fd = reopen_fd(r->proc_fd, at, flags & ~O_NOFOLLOW);
	else if (flags & (O_PATH | O_NOFOLLOW)) /* both are seen in F_GETFL */
		fd = openat(where.dir, where.path, flags);
	else
		fd = reopen_fd(r->proc_fd, at, flags);
	if (fd < 0)
		return error_errno(e, flags & (O_PATH | O_NOFOLLOW) ? -errno : fd, E_FILE_OPEN,
				   "cannot open %s", path);
	if (inode->checked &&
	    (fstat(fd, &st) < 0 || st.st_dev != inode->dev || st.st_ino != inode->ino)) {
		close_fd(&fd);
		return error_set(e, -ESTALE, E_FILE_CHANGED, "%s was replaced during the restart",
				 path);
	}
	*ret_fd = fd;
	return 0;
}
