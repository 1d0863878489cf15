/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filling the descriptor table of a task.
 *
 * The table holds nothing but the control socket, which first moves to a number that is not wanted,
 * above as many as descriptors are. These are received in ascending order of
 * their targets, so that the k-th arrives at number k, at or below its target. Moving begins with
 * the highest: whatever stands on its target has been moved before. The cost is a batch for some
 * hundred descriptors, whatever their numbers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/fdinfo.h"
#include "fs/file_private.h"
#include "fs/send_fds.h"

#define CALLS_MAX 128 /* in one batch */

/* Calls none of which may fail, run when enough have come together. */
struct calls {
	struct restart_task *task;
	struct batch batch;
	const char *what;
	int n;
};

static int calls_run(struct calls *c, struct error *e)
{
	int r = 0;

	if (c->n)
		r = agent_run(c->task->process->agent, c->task->tid, NULL, &c->batch, e);
	for (int i = 0; i < c->n && r >= 0; i++)
		if (batch_result(&c->batch, i) < 0)
			r = error_errno(e, (int)batch_result(&c->batch, i), E_RESTORE,
					"cannot %s in task %d", c->what, c->task->vtid);
	batch_reset(&c->batch);
	c->n = 0;
	return r;
}

static int calls_added(struct calls *c, struct error *e)
{
	return ++c->n < CALLS_MAX ? 0 : calls_run(c, e);
}

/*
 * The task may need more than it had, since it could have lowered its limit. It has inherited ours,
 * of which the soft one was raised (nofile_raise()); the hard one is by who may do that. Both are
 * set to what they were later.
 */
static int make_room(struct restart_task *t, unsigned int highest, struct error *e)
{
	const struct rlimit more = {highest + 1ul, highest + 1ul};
	struct rlimit here;

	if (getrlimit(RLIMIT_NOFILE, &here) < 0)
		return error_errno(e, -errno, E_SYSTEM, "getrlimit");
	if (here.rlim_cur > highest || prlimit(t->process->pid, RLIMIT_NOFILE, &more, NULL) == 0)
		return 0;
	return error_set(e, -EMFILE, E_CREDENTIALS,
			 "task %d needs %u descriptors, and the limit of open files (ulimit -Hn) "
			 "here is %llu",
			 t->vtid, highest + 1, (unsigned long long)here.rlim_max);
}

/*
 * A number for the control socket: its own, if it is above those at which descriptors arrive, and
 * none of them has it for a target; else the lowest such, which is no more than one above the
 * highest target.
 */
static int place_of_socket(const Reprise__Files *msg, int own)
{
	int place = (int)msg->n_fds;
	bool wanted = own < place;

	for (size_t i = 0; i < msg->n_fds; i++) {
		wanted |= msg->fds[i]->fd == own;
		place += msg->fds[i]->fd == place;
	}
	return wanted ? place : own;
}

static int move_socket(struct restart *r, struct restart_task *t, int place, int *ret,
		       struct error *e)
{
	_cleanup_(batch_free) struct batch b = {};
	int dup =
		batch_call(&b, SYS_fcntl, VAL(r->control_remote), VAL(F_DUPFD_CLOEXEC), VAL(place));
	int res;

	batch_must(&b, dup);
	batch_call(&b, SYS_close, VAL(r->control_remote));
	res = agent_run(t->process->agent, t->tid, NULL, &b, e);
	if (res < 0)
		return res;
	res = (int)batch_result(&b, dup);
	if (res < 0)
		return error_errno(e, res, E_RESTORE, "cannot move the control socket of task %d",
				   t->vtid);
	*ret = res;
	return 0;
}

static int receive(struct restart *r, struct restart_task *t, const Reprise__Files *msg, int socket,
		   struct error *e)
{
	_cleanup_(free_ptr) int *fds = calloc(msg->n_fds + 1, sizeof(int));
	_cleanup_(free_ptr) int *remote = calloc(msg->n_fds + 1, sizeof(int));
	_cleanup_(close_fd) int self = give_fd_pidfd(e);
	int res;

	if (self < 0)
		return self;
	if (!fds || !remote)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a descriptor table");
	for (size_t i = 0; i < msg->n_fds; i++) {
		const struct file_open *f = file_open_find(r, msg->fds[i]->file);

		fds[i] = -1;
		if (f->msg->outside)
			fds[i] = file_outside_stream(r, f->msg, msg->fds[i]->fd);
		if (fds[i] < 0)
			fds[i] = f->ops->by_pidfd ? self : f->fd;
	}
	res = send_fds_over(r, t, socket, fds, msg->n_fds, remote, e);
	for (size_t i = 0; i < msg->n_fds && res >= 0; i++)
		if (remote[i] != (int)i)
			res = error_set(e, -EIO, E_INTERNAL,
					"the descriptor table of task %d was not empty", t->vtid);
	return res;
}

static int move(struct restart_task *t, const Reprise__Files *msg, struct error *e)
{
	struct calls c = {.task = t, .what = "move descriptors"};
	int r = 0;

	for (size_t i = msg->n_fds; i-- > 0 && r >= 0;) {
		const Reprise__Fd *fd = msg->fds[i];

		if (fd->fd == (int)i) {
			if (fd->cloexec) /* as it was received */
				continue;
			batch_call(&c.batch, SYS_fcntl, VAL(i), VAL(F_SETFD), VAL(0));
		} else {
			batch_call(&c.batch, SYS_dup3, VAL(i), VAL(fd->fd),
				   VAL(fd->cloexec ? O_CLOEXEC : 0));
			r = calls_added(&c, e);
			if (r < 0)
				break;
			batch_call(&c.batch, SYS_close, VAL(i));
		}
		r = calls_added(&c, e);
	}
	if (r >= 0)
		r = calls_run(&c, e);
	batch_free(&c.batch);
	return r;
}

/* In place of what no socket carries stands a pidfd of ours, by which the task takes it. */
static int take_rest(struct restart *r, struct restart_task *t, const Reprise__Files *msg,
		     struct error *e)
{
	int res = 0;

	for (size_t i = 0; i < msg->n_fds && res >= 0; i++) {
		const Reprise__Fd *fd = msg->fds[i];
		const struct file_open *f = file_open_find(r, fd->file);
		int unused;

		if (f->ops->by_pidfd)
			res = give_fd_taken(t, fd->fd, f->fd, fd->fd, fd->cloexec, &unused, e);
	}
	return res;
}

/*
 * O_ASYNC remembers the number of the descriptor through which it is set, and
 * the signal tells it (si_fd): so the task sets it itself.
 */
static int set_async(struct restart *r, struct restart_task *t, const Reprise__Files *msg,
		     struct error *e)
{
	struct calls c = {.task = t, .what = "set O_ASYNC"};
	int res = 0;

	for (size_t i = 0; i < msg->n_fds && res >= 0; i++) {
		struct file_open *f = file_open_find(r, msg->fds[i]->file);

		if (!(f->msg->flags & O_ASYNC) || f->msg->outside || f->async)
			continue;
		f->async = true;
		batch_call(&c.batch, SYS_fcntl, VAL(msg->fds[i]->fd), VAL(F_SETFL),
			   VAL(f->msg->flags));
		res = calls_added(&c, e);
	}
	if (res >= 0)
		res = calls_run(&c, e);
	batch_free(&c.batch);
	return res;
}

static const Reprise__FileLock *lease_of(const struct file_open *f)
{
	for (size_t i = 0; i < f->msg->n_locks; i++)
		if (f->msg->locks[i]->type == LOCK_LEASE)
			return f->msg->locks[i];
	return NULL;
}

/* A lease remembers the number of the descriptor, too (lease_setup()). Its owner has been set. */
static int take_leases(struct restart *r, struct restart_task *t, const Reprise__Files *msg,
		       struct error *e)
{
	struct calls c = {.task = t,
			  .what = "take a lease again (somebody may have opened the file)"};
	int res = 0;

	for (size_t i = 0; i < msg->n_fds && res >= 0; i++) {
		struct file_open *f = file_open_find(r, msg->fds[i]->file);
		const Reprise__FileLock *lease = lease_of(f);

		if (!lease || f->leased)
			continue;
		f->leased = true;
		batch_call(&c.batch, SYS_fcntl, VAL(msg->fds[i]->fd), VAL(F_SETLEASE),
			   VAL(lease->write ? F_WRLCK : F_RDLCK));
		res = calls_added(&c, e);
	}
	if (res >= 0)
		res = calls_run(&c, e);
	batch_free(&c.batch);
	return res;
}

/* Is a thread of process `pid` a user of this table? */
static bool uses(struct restart *r, pid_t pid, uint64_t table)
{
	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks)
			if (p->vpid == pid && !t->msg->is_zombie && t->msg->files == table)
				return true;
	return false;
}

/*
 * A lock of flock(2) belongs to the description, but the process that took it is told
 * (/proc/locks shows no lock of one that has gone). If it still has the file it takes it itself.
 */
static int try_flocks(struct restart *r, struct restart_task *t, const Reprise__Files *msg,
		      struct error *e)
{
	struct calls c = {.task = t, .what = "take a flock lock again (somebody else may hold it)"};
	int res = 0;

	for (size_t i = 0; i < msg->n_fds && res >= 0; i++) {
		struct file_open *f = file_open_find(r, msg->fds[i]->file);

		for (size_t k = 0; k < f->msg->n_locks && res >= 0; k++) {
			const Reprise__FileLock *lock = f->msg->locks[k];

			if (lock->type != LOCK_FLOCK || !uses(r, lock->pid, t->msg->files))
				continue;
			batch_call(&c.batch, SYS_flock, VAL(msg->fds[i]->fd),
				   VAL((lock->write ? LOCK_EX : LOCK_SH) | LOCK_NB));
			res = calls_added(&c, e);
		}
	}
	if (res >= 0)
		res = calls_run(&c, e);
	batch_free(&c.batch);
	return res;
}

/*
 * POSIX locks belong to the table (fl_owner is current->files), and go with the
 * first descriptor of the file that is closed: they come last.
 */
static int try_locks(struct restart_task *t, const Reprise__Files *msg, struct error *e)
{
	struct calls c = {.task = t, .what = "take a POSIX lock again (somebody else may hold it)"};
	int r = 0;

	for (size_t i = 0; i < msg->n_locks && r >= 0; i++) {
		const Reprise__PosixLock *m = msg->locks[i];
		struct flock lock = {.l_type = m->write ? F_WRLCK : F_RDLCK,
				     .l_whence = SEEK_SET,
				     .l_start = (off_t)m->start,
				     .l_len = m->end == INT64_MAX ? 0
								  : (off_t)(m->end - m->start + 1)};
		uint32_t at = batch_data(&c.batch, &lock, sizeof(lock));

		batch_call(&c.batch, SYS_fcntl, VAL(m->fd), VAL(F_SETLK), DATA(at));
		r = calls_added(&c, e);
	}
	if (r >= 0)
		r = calls_run(&c, e);
	batch_free(&c.batch);
	return r;
}

static int take_locks(struct restart *r, struct restart_task *t, const Reprise__Files *msg,
		      struct error *e)
{
	int res;

	/* To take one again that is held already changes nothing. */
	do {
		error_clear(e);
		res = try_flocks(r, t, msg, e);
		if (res >= 0)
			res = try_locks(t, msg, e);
	} while (res == -EAGAIN && files_restart_patience(r));
	return res;
}

static int close_socket(struct restart_task *t, int socket, struct error *e)
{
	struct calls c = {.task = t, .what = "close the control socket"};
	int r;

	batch_call(&c.batch, SYS_close, VAL(socket));
	c.n = 1;
	r = calls_run(&c, e);
	batch_free(&c.batch);
	return r;
}

int files_restart_fill(struct restart *r, struct restart_task *t, struct error *e)
{
	const Reprise__Files *msg = restart_find(r, RECORD_FILES, t->msg->files);
	int highest = msg->n_fds ? msg->fds[msg->n_fds - 1]->fd : -1;
	int socket = r->control_remote, place = place_of_socket(msg, socket), res;

	res = make_room(t, (unsigned int)(place > highest ? place : highest), e);
	if (res >= 0 && place != socket)
		res = move_socket(r, t, place, &socket, e);
	if (res >= 0)
		res = receive(r, t, msg, socket, e);
	if (res >= 0)
		res = move(t, msg, e);
	if (res >= 0)
		res = take_rest(r, t, msg, e);
	if (res >= 0)
		res = set_async(r, t, msg, e);
	if (res >= 0)
		res = take_leases(r, t, msg, e);
	t->control = socket;
	for (const struct file_ops *const *k = file_kinds; *k && res >= 0; k++)
		if ((*k)->restart_table)
			res = (*k)->restart_table(r, t, msg, e);
	if (res >= 0)
		res = take_locks(r, t, msg, e);
	return res < 0 ? res : close_socket(t, socket, e);
}
