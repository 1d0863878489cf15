/* SPDX-License-Identifier: Apache-2.0 */
/* Opening the descriptions of an image in this process. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/aio_requests.h"
#include "fs/external.h"
#include "fs/fdinfo.h"
#include "fs/file_private.h"
#include "fs/setown.h"
#include "net/tun.h"

/* What F_SETFL can change (fs/fcntl.c, SETFL_MASK). */
#define SETFL_MASK (O_APPEND | O_NONBLOCK | O_ASYNC | O_DIRECT | O_NOATIME)

static const struct file_ops *kind_by_number(uint32_t kind)
{
	for (const struct file_ops *const *k = file_kinds; *k; k++)
		if ((*k)->kind == kind)
			return *k;
	return NULL;
}

struct file_open *file_open_find(const struct restart *r, uint64_t id)
{
	return vec_find_id(&r->files->files, id);
}

int files_restart_fd(const struct restart *r, uint64_t file_id)
{
	const struct file_open *f = r->files ? file_open_find(r, file_id) : NULL;

	return f ? f->fd : -1;
}

/* ---- validation ---- */

static int validate_file(const struct restart *r, uint64_t id, const Reprise__File *msg,
			 struct error *e)
{
	const struct file_ops *ops = kind_by_number(msg->kind);

	if (!ops)
		return error_set(e, -EPROTONOSUPPORT, E_IMAGE_NEWER,
				 "open file %llu is of kind %u, which this version does not know",
				 (unsigned long long)id, msg->kind);
	if (msg->pos > INT64_MAX || msg->standard > 7)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "open file %llu is impossible",
				 (unsigned long long)id);
	if (restart_space_missing(r, msg->network, CLONE_NEWNET))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "open file %llu is in no network",
				 (unsigned long long)id);
	for (size_t i = 0; i < msg->n_locks; i++)
		if (msg->locks[i]->type < LOCK_FLOCK || msg->locks[i]->type > LOCK_LEASE ||
		    msg->locks[i]->end > INT64_MAX || msg->locks[i]->start > msg->locks[i]->end)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "open file %llu has an impossible lock",
					 (unsigned long long)id);
	return ops->validate(r, msg, e);
}

static int validate_table(const struct restart *r, uint64_t id, const Reprise__Files *msg,
			  struct error *e)
{
	for (size_t i = 0; i < msg->n_fds; i++) {
		const Reprise__Fd *fd = msg->fds[i];

		if (fd->fd < 0 || fd->fd > 1 << 30 || (i && fd->fd <= msg->fds[i - 1]->fd))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "descriptor table %llu is not in order",
					 (unsigned long long)id);
		if (!restart_find(r, RECORD_FILE, fd->file))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "descriptor %d of table %llu refers to no open file",
					 fd->fd, (unsigned long long)id);
	}
	for (size_t i = 0; i < msg->n_locks; i++)
		if (msg->locks[i]->end > INT64_MAX || msg->locks[i]->start > msg->locks[i]->end)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "descriptor table %llu has an impossible lock",
					 (unsigned long long)id);
	return 0;
}

static int validate_directory(const struct restart *r, uint64_t id, struct error *e)
{
	const Reprise__Inode *inode = restart_find(r, RECORD_INODE, id);
	int res = inode_validate(r, id, e);

	if (res >= 0 && !S_ISDIR(inode->mode))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "%s should be a directory",
				 inode->path);
	return res;
}

int files_restart_validate(const struct restart *r, struct error *e)
{
	const Reprise__Files *table;
	const Reprise__File *file;
	const Reprise__Fs *fs;
	uint64_t id;
	int res = 0;

	for (size_t i = 0; res >= 0 && (file = restart_nth(r, RECORD_FILE, i, &id)); i++)
		res = validate_file(r, id, file, e);
	for (size_t i = 0; res >= 0 && (table = restart_nth(r, RECORD_FILES, i, &id)); i++)
		res = validate_table(r, id, table, e);
	for (size_t i = 0; res >= 0 && (fs = restart_nth(r, RECORD_FS, i, &id)); i++) {
		res = validate_directory(r, fs->cwd, e);
		if (res >= 0 && fs->root)
			res = validate_directory(r, fs->root, e);
		if (res >= 0 && fs->umask > 0777)
			res = error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible umask");
	}
	return res;
}

/* ---- begin and end ---- */

static int compare_file(const void *a, const void *b)
{
	const struct file_open *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int compare_pipe(const void *a, const void *b)
{
	const struct pipe_open *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int collect(struct restart *r, struct error *e)
{
	struct files_restart *fr = r->files;
	const Reprise__File *file;
	const Reprise__Pipe *pipe;
	uint64_t id;

	for (size_t i = 0; (file = restart_nth(r, RECORD_FILE, i, &id)); i++) {
		struct file_open *f = vec_push(&fr->files);

		if (!f)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the open files");
		*f = (struct file_open){.id = id,
					.msg = file,
					.ops = kind_by_number(file->kind),
					.fd = -1,
					.other = -1};
	}
	for (size_t i = 0; (pipe = restart_nth(r, RECORD_PIPE, i, &id)); i++) {
		struct pipe_open *p = vec_push(&fr->pipes);

		if (!p)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the pipes");
		*p = (struct pipe_open){.id = id, .msg = pipe, .ends = {-1, -1}};
	}
	if (fr->files.n)
		qsort(fr->files.v, fr->files.n, sizeof(*fr->files.v), compare_file);
	if (fr->pipes.n)
		qsort(fr->pipes.v, fr->pipes.n, sizeof(*fr->pipes.v), compare_pipe);
	return 0;
}

bool files_restart_patience(struct restart *r)
{
	const struct timespec pause = {.tv_nsec = 20 * 1000000L};

	if (r->files->patience_ms <= 0)
		return false;
	r->files->patience_ms -= 20;
	nanosleep(&pause, NULL);
	return true;
}

/* All are open here before the tasks have them, and what has no name once more. Who may raises the
 * limit. */
static int check_limit(const struct restart *r, struct error *e)
{
	size_t needed = r->files->files.n + 32;
	const Reprise__Inode *inode;
	struct rlimit limit, more;

	for (size_t i = 0; (inode = restart_nth(r, RECORD_INODE, i, NULL)); i++)
		needed += inode->kind != INODE_NAMED;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || needed <= limit.rlim_cur)
		return 0;
	more = (struct rlimit){needed, needed};
	if (setrlimit(RLIMIT_NOFILE, &more) == 0)
		return 0;
	return error_set(
		e, -EMFILE, E_CREDENTIALS,
		"%zu open files are to be made, and the limit of open files (ulimit -Hn) here is %llu",
		needed, (unsigned long long)limit.rlim_cur);
}

int files_restart_begin(struct restart *r, struct error *e)
{
	struct files_restart *fr = calloc(1, sizeof(*fr));
	int res;

	if (!fr)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the open files");
	r->files = fr;
	fr->patience_ms = 3000;
	fr->stdio[0] = fr->stdio[1] = fr->stdio[2] = -1;
	fr->soft_limit = nofile_raise();
	res = collect(r, e);
	return res < 0 ? res : check_limit(r, e);
}

void files_restart_end(struct restart *r)
{
	struct files_restart *fr = r->files;

	if (!fr)
		return;
	for (const struct file_ops *const *k = file_kinds; *k; k++)
		if ((*k)->restart_end)
			(*k)->restart_end(r);
	vec_for_each (f, &fr->files) {
		close_fd(&f->fd);
		close_fd(&f->other);
	}
	for (int i = 0; i < 3; i++)
		close_fd(&fr->stdio[i]);
	inodes_restart_end(r);
	nofile_restore(fr->soft_limit);
	vec_free(&fr->files);
	vec_free(&fr->inodes);
	vec_free(&fr->pipes);
	vec_free(&fr->removed);
	free(fr);
	r->files = NULL;
}

/* ---- opening ---- */

static int set_flags(const struct file_open *f, struct error *e)
{
	int is = fcntl(f->fd, F_GETFL), wanted;

	if (is < 0)
		return error_errno(e, -errno, E_SYSTEM, "F_GETFL");
	/* O_ASYNC is set by the task. */
	wanted = (is & ~SETFL_MASK) | ((int)f->msg->flags & SETFL_MASK & ~O_ASYNC);
	if (wanted != is && fcntl(f->fd, F_SETFL, wanted) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set its flags to %#o",
				   f->msg->flags);
	return 0;
}

static bool has_file(const Reprise__Files *table, uint64_t id)
{
	for (size_t i = 0; table && i < table->n_fds; i++)
		if (table->fds[i]->file == id)
			return true;
	return false;
}

/* Is the process that took it in the tree, and still has it? See try_flocks(). */
static bool has_taker(struct restart *r, const struct file_open *f, const Reprise__FileLock *lock)
{
	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks)
			if (p->vpid == lock->pid && !t->msg->is_zombie &&
			    has_file(restart_find(r, RECORD_FILES, t->msg->files), f->id))
				return true;
	return false;
}

static int take_lock(struct restart *r, const struct file_open *f, const Reprise__FileLock *lock,
		     struct error *e)
{
	struct flock l = {.l_type = lock->write ? F_WRLCK : F_RDLCK,
			  .l_whence = SEEK_SET,
			  .l_start = (off_t)lock->start,
			  .l_len = lock->end == INT64_MAX ? 0
							  : (off_t)(lock->end - lock->start + 1)};
	int res;

	if (lock->type == LOCK_LEASE || (lock->type == LOCK_FLOCK && has_taker(r, f, lock)))
		return 0; /* taken by a task */
	do
		if (lock->type == LOCK_FLOCK)
			res = flock(f->fd, (lock->write ? LOCK_EX : LOCK_SH) | LOCK_NB);
		else
			res = fcntl(f->fd, F_OFD_SETLK, &l);
	while (res < 0 && errno == EAGAIN && files_restart_patience(r));
	if (res < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot take its %s lock again%s",
				   lock->type == LOCK_FLOCK ? "flock" : "OFD",
				   errno == EAGAIN ? ", somebody else holds it" : "");
	return 0;
}

typedef int (*file_fn)(struct restart *r, struct file_open *f, struct error *e);

/* A socket is made where it was. One may be made in the course of making another. */
static int in_network(struct restart *r, struct file_open *f, file_fn fn, struct error *e)
{
	uint64_t was, unused;
	int res = restart_enter_network(r, f->msg->network, &was), back;

	if (res < 0)
		return error_errno(e, res, E_NAMESPACE, "cannot enter its network namespace");
	res = fn(r, f, e);
	back = restart_enter_network(r, was, &unused);
	return back < 0 && res >= 0
		       ? error_errno(e, back, E_NAMESPACE, "cannot leave its network namespace")
		       : res;
}

static int make(struct restart *r, struct file_open *f, struct error *e)
{
	return f->ops->restart(r, f->id, f->msg, &f->fd, e);
}

static int finish(struct restart *r, struct file_open *f, struct error *e)
{
	return f->ops->finish(r, f->id, f->msg, f->fd, e);
}

int file_open_now(struct restart *r, struct file_open *f, struct error *e)
{
	const struct restart_replacement *other = external_replacement(r, f->id, f->msg);
	int res = other ? external_open(r, f, other, e) : in_network(r, f, make, e);

	if (res < 0 || other)
		return res;
	if (f->msg->outside || (f->msg->flags & O_PATH))
		return 0;
	return set_flags(f, e);
}

static int name_error(const struct restart *r, const struct file_open *f, int res, struct error *e)
{
	const Reprise__Files *table;

	/* The first table that has it tells the number by which users know it. */
	for (size_t i = 0; (table = restart_nth(r, RECORD_FILES, i, NULL)); i++)
		for (size_t k = 0; k < table->n_fds; k++)
			if (table->fds[k]->file == f->id)
				return error_object(e, res, "descriptor %d (%s)", table->fds[k]->fd,
						    f->ops->name);
	return error_object(e, res, "open file %llu (%s)", (unsigned long long)f->id, f->ops->name);
}

/* Sockets (late) may have addresses of interfaces that descriptors of the tree make. */
enum turn { TURN_FIRST, TURN_LINKS, TURN_LATE, TURN_LAST };

static enum turn turn_of(const struct restart *r, const struct file_open *f)
{
	const Reprise__Inode *inode =
		f->msg->regular ? restart_find(r, RECORD_INODE, f->msg->regular->inode) : NULL;

	/* The name of a socket (with O_PATH), which is made when the socket is bound. */
	if (inode && S_ISSOCK(inode->mode))
		return TURN_LAST;
	/* It hears what is put into the queues of other sockets. */
	if (f->msg->packet)
		return TURN_LAST;
	if (f->msg->tun)
		return TURN_LINKS;
	/* A file with a lease for writing can be opened when nobody else has it open, such as an
	 * original that is about to end. */
	for (size_t i = 0; i < f->msg->n_locks; i++)
		if (f->msg->locks[i]->type == LOCK_LEASE && f->msg->locks[i]->write)
			return TURN_LATE;
	return f->ops->after_tasks ? TURN_LATE : TURN_FIRST;
}

static int open_all(struct restart *r, enum turn turn, struct error *e)
{
	vec_for_each (f, &r->files->files) {
		int res;

		if (turn_of(r, f) != turn || f->fd >= 0)
			continue;
		res = file_open_now(r, f, e);
		if (res < 0)
			return name_error(r, f, res, e);
	}
	return 0;
}

int files_restart_open(struct restart *r, struct error *e)
{
	return open_all(r, TURN_FIRST, e);
}

static bool in_some_table(const struct restart *r, uint64_t file)
{
	const Reprise__Files *table;

	for (size_t i = 0; (table = restart_nth(r, RECORD_FILES, i, NULL)); i++)
		if (has_file(table, file))
			return true;
	return false;
}

/* No task will set it where only a queue holds the description: the number that its signals tell
 * is lost. */
static int set_async_in_flight(struct restart *r, struct error *e)
{
	vec_for_each (f, &r->files->files) {
		if (!(f->msg->flags & O_ASYNC) || f->msg->outside || in_some_table(r, f->id))
			continue;
		if (fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) | O_ASYNC) < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot set O_ASYNC");
	}
	return 0;
}

int files_restart_open_late(struct restart *r, struct error *e)
{
	int res = open_all(r, TURN_LINKS, e);

	if (res >= 0)
		res = tun_links_restore(r, e);
	if (res >= 0)
		res = open_all(r, TURN_LATE, e);
	if (res >= 0)
		res = open_all(r, TURN_LAST, e);
	if (res < 0)
		return res;
	vec_for_each (f, &r->files->files) {
		for (size_t i = 0; i < f->msg->n_locks && res >= 0; i++)
			res = take_lock(r, f, f->msg->locks[i], e);
		if (res >= 0 && f->ops->finish)
			res = in_network(r, f, finish, e);
		if (res >= 0 && f->msg->owner && !f->msg->outside)
			res = file_set_owner(r, f->fd, f->msg, e);
		if (res < 0)
			return name_error(r, f, res, e);
	}
	for (const struct file_ops *const *k = file_kinds; *k && res >= 0; k++)
		if ((*k)->restart_all)
			res = (*k)->restart_all(r, e);
	if (res >= 0)
		res = aio_requests_restart(r, e);
	return res < 0 ? res : set_async_in_flight(r, e);
}
