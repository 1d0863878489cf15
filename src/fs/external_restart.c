/* SPDX-License-Identifier: Apache-2.0 */
/* What a restart puts in the place of open files: of external ones, and of others by choice. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/external.h"
#include "fs/file_kinds.h"

/* The description that a task of the image has under a number; 0: none. */
static uint64_t file_at(const struct restart *r, pid_t pid, int fd)
{
	const Reprise__Files *table;
	const Reprise__Task *t;

	for (size_t i = 0; (t = restart_nth(r, RECORD_TASK, i, NULL)); i++) {
		table = t->tid == pid ? restart_find(r, RECORD_FILES, t->files) : NULL;
		for (size_t k = 0; table && k < table->n_fds; k++)
			if (table->fds[k]->fd == fd)
				return table->fds[k]->file;
	}
	return 0;
}

/* One that stands alone: nothing else of the image has to do with what is behind it. */
static bool is_replaceable(const Reprise__File *msg)
{
	return msg->external || msg->outside || msg->regular || msg->device || msg->tty;
}

/* By which --replace names it. "": by its number only. */
static const char *name_of(const struct restart *r, const Reprise__File *msg)
{
	uint64_t id = msg->regular  ? msg->regular->inode
		      : msg->device ? msg->device->inode
		      : msg->tty    ? msg->tty->inode
				    : 0;
	const Reprise__Inode *inode = id ? restart_find(r, RECORD_INODE, id) : NULL;

	return msg->external ? msg->external->name : inode ? inode->path : "";
}

static bool names(const struct restart *r, const struct restart_replacement *x, uint64_t id,
		  const Reprise__File *msg)
{
	pid_t pid;
	int fd;

	if (external_by_number(x->object, &pid, &fd))
		return file_at(r, pid, fd) == id;
	return external_matches(x->object, name_of(r, msg)) ||
	       (msg->external && external_matches(x->object, msg->external->link));
}

const struct restart_replacement *external_replacement(const struct restart *r, uint64_t id,
						       const Reprise__File *msg)
{
	vec_for_each (x, &r->replacements)
		if (is_replaceable(msg) && names(r, x, id, msg))
			return x;
	return NULL;
}

/* ---- before anything is made ---- */

static int check_used(const struct restart *r, const struct restart_replacement *x, struct error *e)
{
	const Reprise__File *msg, *met = NULL;
	uint64_t id;

	for (size_t i = 0; (msg = restart_nth(r, RECORD_FILE, i, &id)); i++) {
		if (!names(r, x, id, msg))
			continue;
		if (is_replaceable(msg))
			return 0;
		met = msg;
	}
	return met ? error_set(
			     e, -EINVAL, E_FILE_REPLACE,
			     "%s cannot be replaced: it was not declared external at the checkpoint",
			     x->object)
		   : error_set(e, -ENOENT, E_FILE_REPLACE, "no open file of the image is called %s",
			       x->object);
}

static int refuse_missing(const struct restart *r, uint64_t id, const Reprise__File *msg,
			  struct error *e)
{
	int err = error_set(e, -ENXIO, E_FILE_EXTERNAL,
			    "%s was declared external, and nothing takes its place",
			    msg->external->name);
	const Reprise__Files *table;
	const Reprise__Task *t;

	for (size_t i = 0; (t = restart_nth(r, RECORD_TASK, i, NULL)); i++) {
		table = restart_find(r, RECORD_FILES, t->files);
		for (size_t k = 0; table && k < table->n_fds; k++)
			if (table->fds[k]->file == id)
				return error_object(e, err, "task %d (%s), descriptor %d", t->tid,
						    t->comm, table->fds[k]->fd);
	}
	return err;
}

static bool has_stream(const struct restart *r, const Reprise__File *msg)
{
	for (int n = 0; n <= 2; n++)
		if (msg->standard & FILE_STANDARD(n) && r->stdio[n] >= 0)
			return true;
	return false;
}

int external_check(const struct restart *r, struct error *e)
{
	const Reprise__File *msg;
	uint64_t id;
	int res = 0;

	vec_for_each (x, &r->replacements)
		if (res >= 0)
			res = check_used(r, x, e);
	for (size_t i = 0; res >= 0 && (msg = restart_nth(r, RECORD_FILE, i, &id)); i++)
		if (msg->external && !has_stream(r, msg) && !external_replacement(r, id, msg))
			res = refuse_missing(r, id, msg, e);
	return res;
}

/* ---- opening ---- */

static int connect_unix(const char *name, uint32_t type)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	_cleanup_(close_fd) int fd =
		socket(AF_UNIX, (type ? (int)type : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	size_t n = strlen(name);

	if (fd < 0)
		return -errno;
	if (!n || n >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	memcpy(un.sun_path, name, n);
	if (name[0] == '@')
		un.sun_path[0] = '\0';
	if (connect(fd, (const struct sockaddr *)&un,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		return -errno;
	return take_fd(&fd);
}

/* As the original was opened; its position counts where there is one. */
static int open_path(const char *path, const Reprise__File *msg)
{
	unsigned int keep = O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECT | O_SYNC | O_PATH;
	int fd = open(path, (int)(msg->flags & keep) | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (msg->regular && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !(msg->flags & O_PATH) &&
	    lseek(fd, (off_t)msg->pos, SEEK_SET) < 0) {
		close_fd(&fd);
		return -EINVAL;
	}
	return fd;
}

static int take_flags(int fd, unsigned int wanted)
{
	const unsigned int mask = O_APPEND | O_NONBLOCK;
	int is = fcntl(fd, F_GETFL);

	if (is < 0)
		return -errno;
	if (is & O_PATH || (((unsigned int)is ^ wanted) & mask) == 0)
		return 0;
	return fcntl(fd, F_SETFL, (is & ~(int)mask) | (int)(wanted & mask)) < 0 ? -errno : 0;
}

static int duplicate(int given)
{
	int fd = fcntl(given, F_DUPFD_CLOEXEC, 3);

	return fd < 0 ? -errno : fd;
}

int external_open(struct restart *r, struct file_open *f, const struct restart_replacement *x,
		  struct error *e)
{
	const Reprise__External *m = f->msg->external;
	_cleanup_(close_fd) int fd = -EBADF;
	int res;

	(void)r;
	if (!x->with)
		fd = duplicate(x->fd);
	else if (!strncmp(x->with, "file:", 5))
		fd = open_path(x->with + 5, f->msg);
	else if (!strncmp(x->with, "unix:", 5))
		fd = connect_unix(x->with + 5, m ? m->socket : 0);
	else
		return error_set(e, -EINVAL, E_USAGE, "%s replaces nothing", x->with);
	res = fd < 0 ? fd : take_flags(fd, f->msg->flags);
	if (res < 0)
		return error_errno(e, res, E_FILE_OPEN, "cannot put %s in the place of %s",
				   x->with ? x->with : "a descriptor", x->object);
	f->fd = take_fd(&fd);
	return 0;
}
