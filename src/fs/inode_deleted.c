/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that were removed while they were open.
 *
 * One that has another name still is a file like any other, if that name can be found; what is
 * done otherwise is for the user to say. All others are saved with their contents, and made again
 * under the name that they had, opened and removed at once, so that even the link texts in /proc
 * are the same. Where that name is in use by now, a name beside it is taken; where the directory
 * cannot be written, a file without a name in /tmp or in memory.
 *
 * A directory that was removed, with what had been in it, is made again until all that was in it
 * has been made, so that ".." leads where it led. Then it is removed again.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/inode_private.h"
#include "fs/inode_search.h"

/*
 * The directory of a path as the kernel has told it, which has no links in it: whoever may write to
 * one above could put one there while files are made and removed in it.
 */
static int open_parent(int root, const char *path, const char **ret_name)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
			       .resolve = RESOLVE_NO_SYMLINKS};
	const struct rooted at = rooted_path(root, path);
	const char *slash = strrchr(at.path, '/');
	_cleanup_(free_ptr) char *dir =
		slash ? strndup(at.path, (size_t)(slash - at.path) + 1) : strdup(".");
	int fd;

	if (!dir)
		return -ENOMEM;
	*ret_name = slash ? slash + 1 : at.path;
	fd = (int)syscall(SYS_openat2, at.dir, dir, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

/* ---- checkpoint ---- */

/* O_TMPFILE: fs/dcache.c, d_mark_tmpfile_name() */
static bool is_tmpfile_name(const char *path)
{
	const char *name = strrchr(path, '/') + 1;

	return name[0] == '#' && name[1] && strspn(name + 1, "0123456789") == strlen(name + 1);
}

/* The other name of a file that has one: beside the removed one, or among what the tree has open.
 */
static char *find_link(struct checkpoint *c, const struct stat *st, const char *path,
		       struct error *e)
{
	_cleanup_(free_ptr) char *dir = strdup(path);
	_cleanup_(close_fd) int fd = -EBADF;
	char *link = NULL;

	if (!dir)
		return NULL;
	strrchr(dir, '/')[1] = '\0';
	fd = inode_search_directory(c, dir, st->st_dev, st->st_ino);
	if (fd < 0)
		fd = inode_search(c, 0, st->st_dev, st->st_ino);
	if (fd < 0 || procfs_readlink(c->proc_fd, &link, NULL, "self/fd/%d", fd) < 0)
		return NULL;
	return link;
}

/* A new name beside the removed one, which stays: the image refers to it. */
static int make_link(struct checkpoint *c, int fd, const char *path, struct inode_entry *entry,
		     struct error *e)
{
	char old[32], *name = scratch_alloc(&c->files->scratch, strlen(path) + 48);
	struct made_link *made = vec_push(&c->files->links);
	_cleanup_(close_fd) int dir = -EBADF;
	const char *base;

	if (!name || !made)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a name");
	snprintf(name, strlen(path) + 48, "%s.reprise-%d-%zu", path, (int)c->self,
		 c->files->links.n);
	*made = (struct made_link){};
	snprintf(old, sizeof(old), "self/fd/%d", fd);
	dir = open_parent(AT_FDCWD, name, &base);
	if (dir < 0)
		errno = -dir;
	if (dir < 0 || linkat(c->proc_fd, old, dir, base, AT_SYMLINK_FOLLOW) < 0)
		return errno == ENOENT ? error_set(e, -ENOENT, E_FILE_STATE,
						   "cannot give %s a name, since its directory has "
						   "been removed, too; --deleted=save saves its "
						   "contents",
						   path)
				       : error_errno(e, -errno, E_FILE_STATE,
						     "cannot give %s the name %s", path, name);
	made->path = name;
	entry->msg.kind = INODE_NAMED;
	entry->msg.path = name;
	return 0;
}

static int recognise_linked(struct checkpoint *c, int fd, const struct stat *st, const char *path,
			    struct inode_entry *entry, struct error *e)
{
	const bool nested = entry->root != AT_FDCWD;
	_cleanup_(free_ptr) char *other = nested ? NULL : find_link(c, st, path, e);

	if (other) {
		entry->msg.kind = INODE_NAMED;
		entry->msg.path = scratch_string(&c->files->scratch, other);
		return entry->msg.path ? 0
				       : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	}
	if (c->deleted == DELETED_LINK && nested)
		return error_set(e, -EOPNOTSUPP, E_FILE_LINKED,
				 "%s was removed, and is given no name below another mount or in "
				 "another mount namespace than the root task's",
				 path);
	if (c->deleted == DELETED_LINK && !c->checking)
		return make_link(c, fd, path, entry, e);
	if (c->deleted == DELETED_REFUSE)
		return error_set(e, -EBUSY, E_FILE_LINKED,
				 "%s was removed, but the file has another name (hard link) that "
				 "is not known",
				 path);
	entry->msg.kind = INODE_DELETED;
	entry->msg.path = (char *)path;
	return 0;
}

int inode_deleted_recognise(struct checkpoint *c, int fd, const struct stat *st, const char *link,
			    const char *path, struct inode_entry *entry, struct error *e)
{
	/* Some file systems count a removed directory as having a link. */
	if (!S_ISDIR(st->st_mode) && st->st_nlink > 0)
		return recognise_linked(c, fd, st, path, entry, e);
	if (!S_ISDIR(st->st_mode) && !S_ISFIFO(st->st_mode) && !S_ISREG(st->st_mode))
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "%s is a special file without a name", link);
	entry->msg.kind = INODE_DELETED;
	entry->msg.path = (char *)path;
	entry->msg.tmpfile = S_ISREG(st->st_mode) && is_tmpfile_name(path);
	return 0;
}

void inode_deleted_end(struct checkpoint *c)
{
	/* Names that no image refers to. */
	vec_for_each (made, &c->files->links) {
		const char *name;
		int dir = made->path && !c->complete ? open_parent(AT_FDCWD, made->path, &name)
						     : -EBADF;

		if (dir < 0)
			continue;
		ignore(unlinkat(dir, name, 0), "it is one name too many, no more");
		close(dir);
	}
	vec_free(&c->files->links);
}

/* ---- restart ---- */

/* It will be given to somebody: is it what we have made, or was that exchanged? */
static bool is_ours(int fd, mode_t mode)
{
	struct stat st;

	return fstat(fd, &st) == 0 && ((st.st_mode ^ mode) & S_IFMT) == 0 && st.st_uid == geteuid();
}

/* The inode of that name, made by us: a descriptor of it, or a negative errno. */
static int make_in(int dir, const char *name, mode_t mode)
{
	int fd;

	if (S_ISREG(mode)) {
		fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		return fd < 0 ? -errno : fd;
	}
	if (S_ISDIR(mode) ? mkdirat(dir, name, 0700) < 0 : mkfifoat(dir, name, 0600) < 0)
		return -errno;
	fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && !is_ours(fd, mode)) {
		close(fd);
		return -ESTALE;
	}
	return fd < 0 ? -errno : fd;
}

static int make_at(int root, const char *path, mode_t mode)
{
	const char *name;
	_cleanup_(close_fd) int dir = open_parent(root, path, &name);

	return dir < 0 ? dir : make_in(dir, name, mode);
}

static int make_unlinked(int root, const char *path, mode_t mode)
{
	const char *name;
	_cleanup_(close_fd) int dir = open_parent(root, path, &name);
	int fd = dir < 0 ? dir : make_in(dir, name, mode);

	if (fd < 0)
		return fd;
	if (unlinkat(dir, name, S_ISDIR(mode) ? AT_REMOVEDIR : 0) < 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

static int make_beside(int root, const char *path, mode_t mode, uint64_t id)
{
	char name[4200];

	snprintf(name, sizeof(name), "%s.reprise-%d-%llu", path, (int)getpid(),
		 (unsigned long long)id);
	return make_unlinked(root, name, mode);
}

static int make_elsewhere(mode_t mode, uint64_t id)
{
	int fd;

	if (!S_ISREG(mode))
		return make_beside(AT_FDCWD, "/tmp/deleted", mode, id);
	fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = memfd_create("deleted", MFD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Made by O_TMPFILE: the application may yet give it a name with linkat(). */
static int make_tmpfile(int root, const char *path)
{
	_cleanup_(free_ptr) char *dir = strdup(path);
	struct rooted at;
	int fd;

	if (!dir)
		return -ENOMEM;
	strrchr(dir, '/')[1] = '\0';
	at = rooted_path(root, dir);
	fd = openat(at.dir, at.path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

/* ---- removed directories ---- */

static struct inode_open *removed_directory(struct restart *r, int root, const char *path)
{
	const char *own;

	vec_for_each (inode, &r->files->inodes)
		if (inode->msg->kind == INODE_DELETED && inode->fd < 0 &&
		    S_ISDIR(inode->msg->mode) && inode_root(r, inode->msg, &own) == root &&
		    !strcmp(own, path))
			return inode;
	return NULL;
}

/* One directory that is to go again; it may be one that somebody has open. */
static int make_directory(struct restart *r, int root, const char *path)
{
	_cleanup_(free_ptr) char *copy = strdup(path);
	struct inode_open *inode = removed_directory(r, root, path);
	struct removed_dir *made = vec_push(&r->files->removed);
	int fd;

	if (!copy || !made) {
		if (made)
			r->files->removed.n--;
		return -ENOMEM;
	}
	fd = make_at(root, path, S_IFDIR);
	if (fd < 0) {
		r->files->removed.n--;
		return fd;
	}
	*made = (struct removed_dir){.path = take_ptr(&copy), .root = root};
	if (inode)
		inode->fd = fd;
	else
		close(fd);
	return 0;
}

/* The directories above `path` that are missing. */
static int make_parents(struct restart *r, int root, const char *path)
{
	_cleanup_(free_ptr) char *prefix = strdup(path);
	struct stat st;
	int res = 0;

	if (!prefix)
		return -ENOMEM;
	for (char *slash = strchr(prefix + 1, '/'); slash && res >= 0;
	     slash = strchr(slash + 1, '/')) {
		struct rooted at;

		*slash = '\0';
		at = rooted_path(root, prefix);
		if (fstatat(at.dir, at.path, &st, AT_SYMLINK_NOFOLLOW) < 0)
			res = errno == ENOENT ? make_directory(r, root, prefix) : -errno;
		*slash = '/';
	}
	return res;
}

static int remove_again(struct restart *r, struct error *e)
{
	int res = 0;

	while (r->files->removed.n) {
		struct removed_dir *made = &r->files->removed.v[r->files->removed.n - 1];

		const char *name;
		_cleanup_(close_fd) int dir = open_parent(made->root, made->path, &name);
		int err = dir < 0 ? dir : unlinkat(dir, name, AT_REMOVEDIR) < 0 ? -errno : 0;

		if (err < 0 && res >= 0)
			res = error_errno(e, err, E_RESTORE, "cannot remove the directory %s again",
					  made->path);
		free(made->path);
		r->files->removed.n--;
	}
	return res;
}

void inode_deleted_release(struct restart *r)
{
	ignore(remove_again(r, NULL), "there are any after a failure only, which is reported");
}

int inode_deleted_finish(struct restart *r, struct error *e)
{
	int res = remove_again(r, e);

	vec_for_each (inode, &r->files->inodes)
		if (res >= 0 && inode->msg->kind == INODE_DELETED && inode->fd >= 0 &&
		    S_ISDIR(inode->msg->mode))
			res = inode_contents_restart(r, inode, e);
	return res;
}

/* With its name, and what there must be above it. */
static int make_named(int root, const char *path, mode_t mode)
{
	_cleanup_(free_ptr) char *prefix = strdup(path);

	if (!prefix)
		return -ENOMEM;
	for (char *slash = strchr(prefix + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		struct rooted at;

		*slash = '\0';
		at = rooted_path(root, prefix);
		if (mkdirat(at.dir, at.path, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return make_at(root, path, mode);
}

static int make(struct restart *r, const struct inode_open *inode)
{
	const Reprise__Inode *msg = inode->msg;
	const char *path;
	const int root = inode_root(r, msg, &path);
	int fd;

	if (msg->alone)
		return make_named(root, path, msg->mode);
	fd = make_parents(r, root, path);
	if (fd < 0)
		return fd;
	fd = msg->tmpfile ? make_tmpfile(root, path) : -EOPNOTSUPP;
	if (fd < 0)
		fd = make_unlinked(root, path, msg->mode);
	return fd == -EEXIST ? make_beside(root, path, msg->mode, inode->id) : fd;
}

int inode_deleted_restart(struct restart *r, struct inode_open *inode, struct error *e)
{
	const Reprise__Inode *msg = inode->msg;
	int fd = -EEXIST, first;

	if (inode->fd >= 0) /* a directory, made for the sake of what is in it */
		return 0;
	if (S_ISDIR(msg->mode)) {
		const char *path;
		const int root = inode_root(r, msg, &path);

		fd = make_parents(r, root, path);
		if (fd >= 0)
			fd = make_directory(r, root, path);
		if (inode->fd >= 0)
			return 0;
	}
	if (fd < 0)
		fd = make(r, inode);
	first = fd;
	if (fd < 0 && !msg->detached) {
		restart_trace(r, "%s cannot be made again in its directory: %s", msg->path,
			      strerrordesc_np(-fd));
		fd = make_elsewhere(msg->mode, inode->id);
	}
	if (fd < 0)
		return error_errno(e, first, E_RESTORE, "cannot make the deleted %s %s again",
				   S_ISDIR(msg->mode) ? "directory" : "file", msg->path);
	inode->fd = fd;
	return S_ISDIR(msg->mode) ? 0 : inode_contents_restart(r, inode, e);
}
