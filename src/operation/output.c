/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/nfs.h"
#include "operation/output.h"

#define IMAGE_MODE 0600
#define NAME_PART \
	200 /* of a name that is in that of its temporary file, which has to fit as well */

static int split(struct output *o, const char *path, struct error *e)
{
	_cleanup_(free_ptr) char *a = strdup(path), *b = strdup(path);

	if (!a || !b || !(o->name = strdup(basename(b))) || !(o->path = strdup(path)))
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	o->dir = open(dirname(a), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->dir < 0)
		return error_errno(e, -errno, E_OUTPUT,
				   "the directory of the image cannot be opened");
	return 0;
}

/* ".NAME.PID.tmp" */
static int name_temporary(struct output *o)
{
	if (asprintf(&o->temporary, ".%.*s.%d.tmp", NAME_PART, o->name, getpid()) >= 0)
		return 0;
	o->temporary = NULL;
	return -ENOMEM;
}

static bool is_temporary(const struct output *o, const char *name)
{
	size_t len = strnlen(o->name, NAME_PART), digits;

	if (*name != '.' || strncmp(name + 1, o->name, len) || name[len + 1] != '.')
		return false;
	name += len + 2;
	digits = strspn(name, "0123456789");
	return digits && !strcmp(name + digits, ".tmp");
}

static int check_existing(struct output *o, struct error *e)
{
	struct stat st;

	if (fstatat(o->dir, o->name, &st, 0) < 0)
		return o->path[strlen(o->path) - 1] != '/'
			       ? 0
			       : error_set(e, -ENOENT, E_OUTPUT, "there is no such directory");
	if (S_ISDIR(st.st_mode))
		return error_set(e, -EISDIR, E_OUTPUT, "is a directory");
	if (!o->replace)
		return error_set(e, -EEXIST, E_OUTPUT_EXISTS, "exists already");
	if (!S_ISREG(st.st_mode))
		return error_set(e, -EINVAL, E_OUTPUT,
				 "is no regular file, and is not replaced by one");
	return 0;
}

/*
 * What others have left who were killed: each holds a lock on its file as long as one of its
 * processes lives.
 */
static void remove_left(const struct output *o)
{
	int fd = openat(o->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *d;

	if (!dir) {
		close_fd(&fd);
		return;
	}
	while ((d = readdir(dir))) {
		_cleanup_(close_fd) int left = -EBADF;
		struct stat st;

		if (!is_temporary(o, d->d_name))
			continue;
		left = openat(o->dir, d->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (left >= 0 && fstat(left, &st) == 0 && S_ISREG(st.st_mode) &&
		    st.st_uid == geteuid() && flock(left, LOCK_EX | LOCK_NB) == 0)
			unlinkat(o->dir, d->d_name, 0);
	}
	closedir(dir);
}

static int open_temporary(struct output *o)
{
	int r = name_temporary(o);

	if (r < 0)
		return r;
	o->fd = openat(o->dir, o->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, IMAGE_MODE);
	return o->fd < 0 ? -errno : 0;
}

int output_open(struct output *o, const char *path, bool replace, struct error *e)
{
	int r;

	o->replace = replace;
	r = split(o, path, e);
	if (r >= 0)
		r = check_existing(o, e);
	if (r >= 0) {
		o->fd = openat(o->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, IMAGE_MODE);
		if (o->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
			r = open_temporary(o);
		else if (o->fd < 0)
			r = -errno;
		if (r < 0)
			error_errno(e, r, E_OUTPUT, "cannot be created");
		else
			ignore(flock(o->fd, LOCK_EX | LOCK_NB), "not on all file systems");
		if (r >= 0 && (replace || o->temporary))
			remove_left(o);
	}
	if (r < 0) {
		output_abandon(o);
		error_object(e, r, "%s", path);
	}
	return r;
}

/* linkat() of an unnamed file cannot replace: it gets a temporary name, which is renamed. */
static int give_name(struct output *o, const char *name)
{
	char self[64];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", o->fd);
	return linkat(AT_FDCWD, self, o->dir, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

static int publish(struct output *o)
{
	int r;

	if (!o->temporary) {
		r = give_name(o, o->name);
		if (r != -EEXIST || !o->replace)
			return r;
		r = name_temporary(o);
		if (r >= 0)
			r = give_name(o, o->temporary);
		if (r < 0)
			return r;
	}
	if (!o->replace)
		r = nfs_rename_new(o->dir, o->temporary, o->dir, o->name, false);
	else
		r = renameat(o->dir, o->temporary, o->dir, o->name) < 0 ? -errno : 0;
	if (r < 0)
		return r;
	free(take_ptr(&o->temporary));
	return 0;
}

int output_commit(struct output *o, struct error *e)
{
	int r = fsync(o->fd) < 0 ? -errno : 0;

	if (r >= 0)
		r = publish(o);
	if (r == -EEXIST)
		error_set(e, r, E_OUTPUT_EXISTS, "exists already");
	else if (r < 0)
		error_errno(e, r, E_OUTPUT, "cannot be written");
	if (r < 0)
		return error_object(e, r, "%s", o->path);
	/* Some file systems have no fsync for directories; the image is whole either way. */
	ignore(fsync(o->dir), "see above");
	output_abandon(o);
	return 0;
}

void output_abandon(struct output *o)
{
	if (o->temporary)
		unlinkat(o->dir, o->temporary, 0);
	free(take_ptr(&o->temporary));
	free(take_ptr(&o->name));
	free(take_ptr(&o->path));
	close_fd(&o->fd);
	close_fd(&o->dir);
}
