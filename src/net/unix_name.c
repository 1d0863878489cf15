/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of Unix sockets. An abstract name is just bytes. A path is kept by the
 * kernel as it was given to bind(), relative or not, and leads (or has led) to
 * an inode: both have to come back. Names whose path is gone are bound in a scratch directory,
 * below which the same text is looked up (chroot), and removed at the end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/nfs.h"
#include "core/procfs.h"
#include "net/unix.h"
#include "net/unix_below.h"
#include "net/unix_place.h"

static bool same_file(const char *path, const struct unix_info *info, struct stat *st)
{
	/* The kernel's encoding has 20 bits of minor number. */
	return lstat(path, st) == 0 && S_ISSOCK(st->st_mode) &&
	       (uint32_t)st->st_ino == info->file_ino &&
	       st->st_dev == makedev(info->file_dev >> 20, info->file_dev & 0xfffff);
}

typedef bool same_fn(const char *path, const void *arg);

static bool is_seen(const char *path, const void *arg)
{
	struct stat st;

	return same_file(path, arg, &st);
}

static bool is_file(const char *path, const void *arg)
{
	const struct stat *is = arg;
	struct stat st;

	return lstat(path, &st) == 0 && st.st_dev == is->st_dev && st.st_ino == is->st_ino;
}

/* A socket beside this path: renamed, it most likely is in the directory still. */
static char *search_directory(const char *path, same_fn *same, const void *arg)
{
	_cleanup_(free_ptr) char *dir = strdup(path);
	_cleanup_(close_directory) DIR *d = NULL;
	char *slash = dir ? strrchr(dir, '/') : NULL, *found;
	struct dirent *entry;

	if (!slash)
		return NULL;
	*slash = '\0';
	d = opendir(dir[0] ? dir : "/");
	while (d && (entry = readdir(d))) {
		if ((entry->d_type != DT_SOCK && entry->d_type != DT_UNKNOWN) ||
		    asprintf(&found, "%s/%s", dir, entry->d_name) < 0)
			continue;
		if (same(found, arg) && !nfs_is_removed(dirfd(d), found))
			return found;
		free(found);
	}
	return NULL;
}

/*
 * Where the kernel says that the file is: needs CAP_NET_ADMIN. Empty: it has been removed. (What
 * sock_diag tells of it may differ from stat(2), on overlayfs for instance.) A server may have made
 * another name, and removed the one that it was bound to: link(2) lets nobody be in its way.
 */
static int path_by_kernel(struct checkpoint *c, int socket, char **ret, struct error *e)
{
	_cleanup_(close_fd) int fd = ioctl(socket, SIOCUNIXFILE, 0);
	_cleanup_(free_ptr) char *path = NULL;
	struct stat is;
	bool removed;
	char *other;

	if (fd < 0 || fstat(fd, &is) < 0)
		return 0;
	if (is.st_nlink && procfs_readlink(c->proc_fd, &path, NULL, "self/fd/%d", fd) < 0)
		return 0;
	removed = path && nfs_is_removed(fd, path);
	if (removed && is.st_nlink == 1)
		free(take_ptr(&path));
	if (path && (removed || !is_file(path, &is))) {
		other = search_directory(path, is_file, &is);
		if (!other)
			return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
					 "its file %s cannot be reached: something is mounted over "
					 "it, or its name was removed, and another one (a hard "
					 "link) is not in that directory",
					 path);
		free(path);
		path = other;
	}
	*ret = path ? take_ptr(&path) : strdup("");
	return 0;
}

/* A relative name was most likely bound in a directory in which some task still is. */
static char *path_by_name(struct checkpoint *c, const char *name, const struct unix_info *info)
{
	struct stat st;

	vec_for_each (p, &c->processes) {
		_cleanup_(free_ptr) char *cwd = NULL;
		_cleanup_(free_ptr) char *path = NULL;
		char *found;

		if (name[0] != '/' && procfs_readlink(c->proc_fd, &cwd, NULL, "%d/cwd", p->tid) < 0)
			continue;
		if (asprintf(&path, "%s%s%s", cwd ? cwd : "", cwd ? "/" : "", name) < 0)
			return NULL;
		if (same_file(path, info, &st))
			return take_ptr(&path);
		found = search_directory(path, is_seen, info);
		if (found || name[0] == '/')
			return found;
	}
	return NULL;
}

static int set_path(Reprise__UnixSocket *m, const char *path, const struct stat *st,
		    const char *name, struct scratch *s)
{
	size_t len = strlen(path), tail = strlen(name);

	m->path = scratch_string(s, path);
	m->path_mode = st->st_mode & 07777;
	m->path_uid = st->st_uid;
	m->path_gid = st->st_gid;
	if (!m->path)
		return -ENOMEM;
	if (name[0] == '/' || len <= tail || strcmp(path + len - tail, name))
		return 0;
	/* with its slash, if that is all of it */
	m->directory = scratch_string(s, path);
	if (!m->directory)
		return -ENOMEM;
	m->directory[len == tail + 1 ? 1 : len - tail - 1] = '\0';
	return 0;
}

static int save_address(int fd, int (*get)(int, struct sockaddr *, socklen_t *),
			ProtobufCBinaryData *ret, struct scratch *s)
{
	struct sockaddr_un un = {};
	socklen_t len = sizeof(un), head = offsetof(struct sockaddr_un, sun_path);

	if (get(fd, (struct sockaddr *)&un, &len) < 0 || len <= head)
		return 0;
	if (len > sizeof(un))
		len = sizeof(un);
	ret->len = len - head;
	ret->data = scratch_copy(s, un.sun_path, ret->len);
	return ret->data ? 0 : -ENOMEM;
}

static int find_path(struct checkpoint *c, const struct file_seen *f, const struct unix_info *info,
		     Reprise__UnixSocket *m, struct scratch *s, struct error *e)
{
	_cleanup_(free_ptr) char *path = NULL;
	char name[128] = "";
	struct stat st;
	int r = path_by_kernel(c, f->local, &path, e);

	if (r < 0)
		return r;
	memcpy(name, m->name.data, m->name.len < 127 ? m->name.len : 127);
	if (!path)
		path = path_by_name(c, name, info);
	if (path && path[0] && lstat(path, &st) == 0 && set_path(m, path, &st, name, s) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the name of a socket");
	return 0;
}

int unix_name_save(struct checkpoint *c, const struct file_seen *f, const struct unix_info *info,
		   Reprise__UnixSocket *m, struct scratch *s, struct error *e)
{
	int r = save_address(f->local, getsockname, &m->name, s);

	if (r >= 0)
		r = save_address(f->local, getpeername, &m->peer_name, s);
	if (r < 0)
		return error_set(e, r, E_NO_MEMORY, "no memory for the name of a socket");
	if (!info->has_file || !m->name.len || !m->name.data[0])
		return 0;
	return find_path(c, f, info, m, s, e);
}

/* ---- restart ---- */

static int enter(const struct unix_at *at)
{
	if (at->below >= 0)
		return fchdir(at->below) < 0 ? -1 : at->un.sun_path[0] == '/' ? chroot(".") : 0;
	return chdir(at->directory ? at->directory : "/");
}

static void *call_at(void *arg)
{
	struct unix_at *at = arg;

	if (unshare(CLONE_FS) < 0 || enter(at) < 0 ||
	    at->call(at->fd, (struct sockaddr *)&at->un, at->len) < 0)
		at->result = -errno;
	return NULL;
}

int unix_at_run(struct unix_at *at)
{
	pthread_t thread;
	int r;

	if (!at->directory && at->below < 0)
		return at->call(at->fd, (struct sockaddr *)&at->un, at->len) < 0 ? -errno : 0;
	r = pthread_create(&thread, NULL, call_at, at);
	if (r)
		return -r;
	pthread_join(thread, NULL);
	return at->result;
}

static void set_address(struct unix_at *at, const void *name, size_t len)
{
	at->un.sun_family = AF_UNIX;
	memcpy(at->un.sun_path, name, len);
	at->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

/* From its directory: the whole path may be longer than an address. */
static int address_of_path(const char *path, struct unix_address *ret, struct error *e)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? strlen(slash + 1) : 0;

	if (!slash || len >= sizeof(ret->un.sun_path))
		return error_set(e, -EINVAL, E_RESTORE, "cannot connect to %s", path);
	ret->directory = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	if (!ret->directory)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
	ret->un.sun_family = AF_UNIX;
	memcpy(ret->un.sun_path, slash + 1, len + 1);
	ret->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return 0;
}

void unix_address_free(struct unix_address *x)
{
	free(x->directory);
}

static int get_state(struct restart *r, struct unix_restart **ret, struct error *e)
{
	struct unix_restart *u = r->files->unix_sockets;

	if (!u)
		u = r->files->unix_sockets = calloc(1, sizeof(*u));
	if (!u)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the Unix sockets");
	*ret = u;
	return 0;
}

int unix_name_remember(struct unix_restart *u, uint64_t id, const char *path, struct error *e)
{
	struct unix_bound *b = vec_push(&u->bound);

	if (b)
		*b = (struct unix_bound){id, strdup(path)};
	return b && b->reach
		       ? 0
		       : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the name of a socket");
}

/* As sock_diag tells it, which knows the sockets of our network namespace, and calls devices of
 * some file systems by other numbers than stat(2). */
static int is_listed(struct unix_restart *u, const struct stat *st, struct error *e)
{
	int r = u->read ? 0 : unix_table_read(&u->table, e);

	if (r < 0)
		return r;
	u->read = true;
	vec_for_each (x, &u->table.list)
		if (x->has_file && x->file_ino == (uint32_t)st->st_ino &&
		    makedev(x->file_dev >> 20, x->file_dev & 0xfffff) == st->st_dev)
			return 1;
	return 0;
}

/*
 * Does any socket live behind this file? unix_find_bsd() refuses a connection if there is none, and
 * before that says so if there is one of another type. A datagram socket does not notice that
 * somebody has connected to it.
 */
int unix_name_is_live(struct unix_restart *u, const char *path, const struct stat *st,
		      struct error *e)
{
	_cleanup_(close_fd) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	_cleanup_(unix_address_free) struct unix_address to = {};
	struct unix_at at = {.call = connect, .fd = fd, .below = -EBADF};
	struct error unused = {};
	int r = fd < 0 ? -errno : address_of_path(path, &to, &unused);

	if (r >= 0) {
		at.directory = to.directory;
		at.un = to.un;
		at.len = to.len;
		r = unix_at_run(&at);
	}
	if (r >= 0 || r == -EPROTOTYPE || r == -EPERM)
		return 1;
	if (r == -ECONNREFUSED || r == -ENOENT)
		return 0;
	return is_listed(u, st, e);
}

static int make_scratch(struct unix_restart *u, struct error *e)
{
	char template[] = "/tmp/reprise-XXXXXX";

	if (u->scratch)
		return 0;
	if (!mkdtemp(template))
		return error_errno(e, -errno, E_RESTORE, "cannot make a directory in /tmp");
	u->scratch_fd = open(template, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	u->scratch = u->scratch_fd < 0 ? NULL : strdup(template);
	if (u->scratch)
		return 0;
	rmdir(template);
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a path");
}

/* Several may have had the same one. */
static int bind_in_scratch(struct unix_restart *u, uint64_t id, struct unix_at *at,
			   const char *name, struct error *e)
{
	_cleanup_(unix_below_free) struct unix_below b = UNIX_BELOW_INIT;
	_cleanup_(close_fd) int ours = -EBADF;
	_cleanup_(free_ptr) char *path = NULL;
	char own[24];
	int r = make_scratch(u, e);

	if (r < 0)
		return r;
	snprintf(own, sizeof(own), "%zu", u->bound.n);
	if (mkdirat(u->scratch_fd, own, 0700) == 0)
		ours = openat(u->scratch_fd, own, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	r = ours < 0 ? -errno : unix_below_make(&b, ours, name);
	if (r >= 0 && asprintf(&path, "%s/%s/%s", u->scratch, own, b.inside) < 0)
		r = -ENOMEM;
	if (r < 0)
		return error_errno(e, r, E_RESTORE, "cannot make directories for %s", name);
	at->below = b.begin;
	r = unix_at_run(at);
	if (r < 0)
		return error_errno(e, r, r == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot bind a socket to %s, whose file has gone", name);
	return unix_name_remember(u, id, path, e);
}

int unix_name_bind(struct restart *r, uint64_t id, int fd, const Reprise__UnixSocket *m,
		   struct error *e)
{
	struct unix_at at = {.call = bind, .fd = fd, .below = -EBADF};
	char name[sizeof(at.un.sun_path) + 1] = "";
	struct unix_restart *u = NULL;
	int res;

	if (!m->name.len)
		return 0;
	res = get_state(r, &u, e);
	if (res < 0)
		return res;
	set_address(&at, m->name.data, m->name.len);
	memcpy(name, m->name.data, m->name.len);
	if (!name[0]) {
		do
			res = unix_at_run(&at);
		while (res == -EADDRINUSE && files_restart_patience(r));
		if (res < 0)
			return error_errno(e, res, E_RESTORE,
					   "cannot bind a socket to the abstract name @%s",
					   name + 1);
		return 0;
	}
	if (id && m->path[0])
		return unix_place_bind(r, u, id, &at, name, m, e);
	return bind_in_scratch(u, id, &at, name, e);
}

int unix_address_of(struct restart *r, uint64_t id, const Reprise__UnixSocket *to,
		    struct unix_address *ret, struct error *e)
{
	struct unix_restart *u = r->files->unix_sockets;

	*ret = (struct unix_address){.un.sun_family = AF_UNIX};
	if (to->name.len && !to->name.data[0]) {
		memcpy(ret->un.sun_path, to->name.data, to->name.len);
		ret->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + to->name.len);
		return 0;
	}
	for (size_t i = u ? u->bound.n : 0; i-- > 0;)
		if (u->bound.v[i].id == id)
			return address_of_path(u->bound.v[i].reach, ret, e);
	return error_set(e, -ENOTCONN, E_RESTORE, "a socket has no name to connect to");
}

int unix_address_connect(int fd, const struct unix_address *to, struct error *e)
{
	struct unix_at at = {.call = connect,
			     .fd = fd,
			     .directory = to->directory,
			     .un = to->un,
			     .len = to->len,
			     .below = -EBADF};
	int r = unix_at_run(&at), abstract = !to->un.sun_path[0];

	if (r < 0)
		return error_errno(e, r, E_RESTORE, "cannot connect a socket to %s%s%.*s",
				   to->directory ?: "", to->directory ? "/" : "",
				   (int)sizeof(to->un.sun_path) - abstract,
				   to->un.sun_path + abstract);
	return 0;
}

int unix_name_connect(struct restart *r, int fd, uint64_t id, const Reprise__UnixSocket *to,
		      struct error *e)
{
	_cleanup_(unix_address_free) struct unix_address at = {};
	int res = unix_address_of(r, id, to, &at, e);

	return res < 0 ? res : unix_address_connect(fd, &at, e);
}

void unix_names_end(struct restart *r)
{
	struct unix_restart *u = r->files->unix_sockets;

	if (!u)
		return;
	vec_for_each (b, &u->bound)
		free(b->reach);
	if (u->scratch) {
		unix_below_clear(u->scratch_fd);
		ignore(rmdir(u->scratch), "it has just been emptied");
		close_fd(&u->scratch_fd);
	}
	free(u->scratch);
	vec_free(&u->bound);
	unix_table_free(&u->table);
	free(u);
	r->files->unix_sockets = NULL;
}
