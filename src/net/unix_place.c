/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets that are bound where their file was. Whoever may write to a directory above can put
 * another one, or a link, in its place at any moment: what is removed, renamed or given to somebody
 * is therefore named by descriptors of the directory and of the file that was made.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/nfs.h"
#include "core/procfs.h"
#include "net/unix_below.h"
#include "net/unix_exposed.h"
#include "net/unix_place.h"

/* The directory of a path, and the name in it. */
struct place {
	int dir;
	const char *name;
	bool exposed; /* there may be another directory by that name at any moment */
};

static void place_close(struct place *p)
{
	close_fd(&p->dir);
}

static int place_open(struct place *p, const char *path, struct error *e)
{
	const char *slash = strrchr(path, '/');
	_cleanup_(free_ptr) char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : NULL;

	if (!dir)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	p->name = slash + 1;
	p->dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (p->dir < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot open the directory of %s", path);
	p->exposed = geteuid() == 0 && unix_exposed(dir, p->dir);
	return 0;
}

/* Where a user has a say, nothing is made that he could not make himself. */
static int check_right(const struct place *p, const Reprise__UnixSocket *m, struct error *e)
{
	int r = p->exposed ? unix_check_right(p->dir, m->path_uid, m->path_gid) : 0;

	return r < 0 ? error_errno(e, r, r == -EACCES ? E_CREDENTIALS : E_RESTORE,
				   "user %u, whose the socket %s is, may make none there",
				   m->path_uid, m->path)
		     : 0;
}

/* What the original left behind is removed; anything else stays. `was`: zeroes if there was none.
 */
static int make_room(struct restart *rs, struct unix_restart *u, const struct place *at,
		     const char *path, struct stat *was, struct error *e)
{
	int r;

	if (fstatat(at->dir, at->name, was, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (!S_ISSOCK(was->st_mode))
		return error_set(e, -EEXIST, E_RESTORE, "%s is in the way of a socket", path);
	while ((r = unix_name_is_live(u, path, was, e)) > 0 && files_restart_patience(rs)) {
		unix_table_free(&u->table);
		u->read = false;
	}
	if (r > 0)
		return error_set(e, -EADDRINUSE, E_RESTORE,
				 "the socket %s is in use by another program (the original, if it "
				 "still runs)",
				 path);
	if (r >= 0 && unlinkat(at->dir, at->name, 0) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot remove the stale socket %s", path);
	return r;
}

/* Whether the name, as it is looked up, is still that of the file. */
static bool leads_to(const char *name, const Reprise__UnixSocket *m)
{
	const char *base = strrchr(name, '/'), *path_base = strrchr(m->path, '/');
	_cleanup_(free_ptr) char *dir = NULL;
	_cleanup_(free_ptr) char *path_dir = NULL;
	struct stat a, b;

	if (m->directory[0] || !strcmp(name, m->path))
		return true;
	if (!base || name[0] != '/' || strcmp(base, path_base))
		return false;
	dir = strndup(name, (size_t)(base - name) + 1);
	path_dir = strndup(m->path, (size_t)(path_base - m->path) + 1);
	return dir && path_dir && stat(dir, &a) == 0 && stat(path_dir, &b) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* It is made by its name, and opened by that. */
static int check_new(int fd)
{
	struct dirent *d;
	struct stat st;
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	_cleanup_(close_directory) DIR *dir = copy < 0 ? NULL : fdopendir(copy);

	if (!dir || fstat(fd, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid() || (st.st_mode & 077))
		return -EPERM;
	while ((d = next_entry(dir, &r)))
		if (strcmp(d->d_name, ".") && strcmp(d->d_name, ".."))
			return -EPERM;
	return r;
}

/* A directory beside it that is nobody else's. */
static int make_beside(const struct place *at, char name[32])
{
	uint64_t random;
	int fd, r;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	snprintf(name, 32, ".reprise-%016jx", (uintmax_t)random);
	if (mkdirat(at->dir, name, 0700) < 0)
		return -errno;
	fd = openat(at->dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = check_new(fd);
	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}

/* One that was renamed, or is to be made in this very directory: bound below a directory beside it,
 * whence it can be renamed again. */
static int bind_renamed(struct unix_at *at, const struct place *to, const char *name,
			const Reprise__UnixSocket *m, struct error *e)
{
	_cleanup_(unix_below_free) struct unix_below b = UNIX_BELOW_INIT;
	_cleanup_(close_fd) int ours = -EBADF;
	char beside[32];
	int r;

	ours = make_beside(to, beside);
	if (ours < 0)
		return error_errno(e, ours, E_RESTORE, "cannot make a directory beside %s",
				   m->path);
	r = unix_below_make(&b, ours, name);
	at->below = b.begin;
	if (r >= 0)
		r = unix_at_run(at);
	if (r >= 0)
		r = nfs_rename_new(ours, b.inside, to->dir, to->name, true);
	unix_below_clear(ours);
	ignore(unlinkat(to->dir, beside, AT_REMOVEDIR), "it has just been emptied");
	if (r < 0)
		return error_errno(e, r, r == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot bind a socket to %s and rename it to %s", name, m->path);
	return 0;
}

/*
 * The file that was made: the kernel tells who has CAP_NET_ADMIN. Others take the one that is
 * there, which is theirs then.
 */
static int open_bound(int socket, const struct place *at, struct stat *st)
{
	int fd = ioctl(socket, SIOCUNIXFILE, 0), own = fd;
	struct stat named;

	if (fd < 0)
		fd = openat(at->dir, at->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, st) < 0 || fstatat(at->dir, at->name, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
	    st->st_dev != named.st_dev || st->st_ino != named.st_ino || !S_ISSOCK(st->st_mode) ||
	    st->st_nlink > 1 || (own < 0 && st->st_uid != geteuid())) {
		close(fd);
		return -ESTALE;
	}
	return fd;
}

static int set_owner(struct restart *rs, int socket, const struct place *at,
		     const Reprise__UnixSocket *m, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	struct stat st;
	int r;

	fd = open_bound(socket, at, &st);
	if (fd < 0)
		return error_errno(e, fd, E_RESTORE, "the file of the socket %s is another one now",
				   m->path);
	r = procfs_give(rs->proc_fd, fd, m->path_mode & 07777, m->path_uid, m->path_gid);
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot set owner and mode of %s", m->path) : 0;
}

static int bind_at(struct unix_at *at, const struct place *place, const char *name,
		   const Reprise__UnixSocket *m, struct error *e)
{
	int r;

	if (place->exposed || !leads_to(name, m))
		return bind_renamed(at, place, name, m, e);
	at->directory = m->directory[0] ? m->directory : NULL;
	r = unix_at_run(at);
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot bind a socket to %s", m->path) : 0;
}

int unix_place_bind(struct restart *rs, struct unix_restart *u, uint64_t id, struct unix_at *at,
		    const char *name, const Reprise__UnixSocket *m, struct error *e)
{
	_cleanup_(place_close) struct place place = {.dir = -EBADF};
	struct stat was = {};
	int r = place_open(&place, m->path, e);

	if (r >= 0)
		r = check_right(&place, m, e);
	if (r >= 0)
		r = make_room(rs, u, &place, m->path, &was, e);
	if (r < 0)
		return r;
	r = restart_replaced(rs, place.dir, place.name, &was, e);
	if (r >= 0)
		r = bind_at(at, &place, name, m, e);
	if (r >= 0)
		r = restart_made(rs, e);
	if (r >= 0)
		r = set_owner(rs, at->fd, &place, m, e);
	return r < 0 ? r : unix_name_remember(u, id, m->path, e);
}
