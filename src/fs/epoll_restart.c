/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll at the restart. An entry is known by its description and by the number
 * under which it was added, with which the application will name it again. So each description is
 * put on that number for the moment of the adding: in a thread with a descriptor table of its own,
 * where nobody is disturbed. A signalfd is added by a task (epoll_signals.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "fs/epoll.h"
#include "fs/epoll_private.h"
#include "fs/file_kinds.h"
#include "kernel/vfork.h"

int epoll_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->epoll)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an epoll set without its message");
	for (size_t i = 0; i < msg->epoll->n_entries; i++) {
		const Reprise__EpollEntry *m = msg->epoll->entries[i];

		if (m->fd < 0 || m->fd > 1 << 30 || m->adder < ADDED_BY_NOBODY ||
		    !restart_find(r, RECORD_FILE, m->file))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "an epoll set with an improper entry %d", m->fd);
	}
	return 0;
}

int epoll_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		  struct error *e)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make an epoll set");
	*ret_fd = fd;
	return 0;
}

static int set_params(int fd, const Reprise__Epoll *m, struct error *e)
{
	struct epoll_busy_params params = {
		.busy_poll_usecs = m->busy_poll_usecs,
		.busy_poll_budget = (uint16_t)m->busy_poll_budget,
		.prefer_busy_poll = m->prefer_busy_poll,
	};

	if (!m->busy_poll_usecs && !m->busy_poll_budget && !m->prefer_busy_poll)
		return 0;
	if (ioctl(fd, EPIOCSPARAMS, &params) < 0)
		return error_errno(e, -errno, E_RESTORE,
				   "cannot set the busy polling of an epoll set");
	return 0;
}

static bool added_by_task(const struct restart *r, const Reprise__EpollEntry *m)
{
	const Reprise__File *file = restart_find(r, RECORD_FILE, m->file);

	return file->kind == FILE_SIGNALFD && m->adder != ADDED_BY_NOBODY;
}

/*
 * A one-shot entry that has fired. The kernel adds errors and hang-ups to whatever is asked for, so
 * an entry without them cannot be added: it has to fire here, too.
 */
static bool has_fired(const Reprise__EpollEntry *m)
{
	return (m->events & EPOLLONESHOT) && !(m->events & (EPOLLERR | EPOLLHUP));
}

static int add(int set, const Reprise__EpollEntry *m)
{
	struct epoll_event event = {.events = m->events, .data.u64 = m->data}, fired;

	if (has_fired(m))
		event.events |= EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP;
	if (epoll_ctl(set, EPOLL_CTL_ADD, m->fd, &event) < 0)
		return -errno;
	/* Nothing else in the set can be ready: those that have fired are added first. */
	if (!has_fired(m) || epoll_wait(set, &fired, 1, 0) == 1)
		return 0;
	event.events = m->events;
	return epoll_ctl(set, EPOLL_CTL_MOD, m->fd, &event) < 0 ? -errno : 0;
}

/* Whatever has that number here is put aside and back. */
static int add_as(int set, int fd, const Reprise__EpollEntry *m)
{
	int aside = -1, r = 0;

	if (fd == m->fd)
		return add(set, m);
	if (fcntl(m->fd, F_GETFD) >= 0) {
		aside = fcntl(m->fd, F_DUPFD_CLOEXEC, 0);
		if (aside < 0)
			return -errno;
	}
	if (set == m->fd)
		set = aside;
	r = dup3(fd, m->fd, O_CLOEXEC) < 0 ? -errno : add(set, m);
	/* Closing a duplicate takes nothing out of the set. */
	if (aside >= 0) {
		dup3(aside, m->fd, O_CLOEXEC);
		close(aside);
	} else {
		close(m->fd);
	}
	return r;
}

static int fill_set(struct restart *r, const struct file_open *set, bool fired, struct error *e)
{
	const Reprise__Epoll *msg = set->msg->epoll;

	for (size_t i = 0; i < msg->n_entries; i++) {
		const Reprise__EpollEntry *m = msg->entries[i];
		int res;

		if (added_by_task(r, m) || has_fired(m) != fired)
			continue;
		res = add_as(set->fd, files_restart_fd(r, m->file), m);
		if (res < 0)
			return error_errno(e, res, E_RESTORE,
					   "cannot add descriptor %d to an epoll set", m->fd);
	}
	return 0;
}

struct fill {
	struct restart *r;
	struct error *e;
	int result;
};

static void *fill_all(void *arg)
{
	struct fill *f = arg;

	if (unshare(CLONE_FILES) < 0) {
		f->result = error_errno(f->e, -errno, E_SYSTEM, "cannot copy the descriptor table");
		return NULL;
	}
	vec_for_each (set, &f->r->files->files) {
		if (set->ops != &epoll_file_ops || f->result < 0)
			continue;
		f->result = fill_set(f->r, set, true, f->e);
		if (f->result >= 0)
			f->result = fill_set(f->r, set, false, f->e);
		if (f->result >= 0)
			f->result = set_params(set->fd, set->msg->epoll, f->e);
	}
	return NULL;
}

/* By a child of vfork() when it has been made (`late`); by others, and by us, before. */
static bool is_added_now(struct restart *r, const Reprise__EpollEntry *m,
			 const struct restart_process *late)
{
	const struct restart_task *t = m->adder > 0 ? restart_task_by_vtid(r, m->adder) : NULL;

	if (!added_by_task(r, m))
		return false;
	return late ? t && t->process == late : !t || !vfork_is_child(t->process);
}

static int fill_by_tasks(struct restart *r, const struct restart_process *late, struct error *e)
{
	int res = 0;

	vec_for_each (set, &r->files->files) {
		const Reprise__Epoll *m = set->ops == &epoll_file_ops ? set->msg->epoll : NULL;

		for (size_t i = 0; m && i < m->n_entries && res >= 0; i++)
			if (is_added_now(r, m->entries[i], late))
				res = epoll_signals_restart(r, set, m->entries[i], e);
	}
	return res;
}

int epoll_restart_all(struct restart *r, struct error *e)
{
	struct fill f = {.r = r, .e = e};
	bool any = false;
	pthread_t thread;
	int err;

	vec_for_each (set, &r->files->files)
		any |= set->ops == &epoll_file_ops;
	if (!any)
		return 0;
	err = pthread_create(&thread, NULL, fill_all, &f);
	if (err)
		return error_errno(e, -err, E_SYSTEM, "cannot make a thread");
	pthread_join(thread, NULL);
	return f.result < 0 ? f.result : fill_by_tasks(r, NULL, e);
}

bool epoll_is_added_late(struct restart *r, const struct restart_process *p)
{
	vec_for_each (set, &r->files->files) {
		const Reprise__Epoll *m = set->ops == &epoll_file_ops ? set->msg->epoll : NULL;

		for (size_t i = 0; m && i < m->n_entries; i++)
			if (is_added_now(r, m->entries[i], p))
				return true;
	}
	return false;
}

int epoll_restart_late(struct restart *r, const struct restart_process *p, struct error *e)
{
	return fill_by_tasks(r, p, e);
}
