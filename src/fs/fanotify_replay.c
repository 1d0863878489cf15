/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unread events of fanotify, made anew: each by the task of the tree that has caused it, or one
 * that stands for it, on the very file (fanotify_cause.c), while the group has nothing but one mark
 * for that. What the group holds then is read from the memory of the kernel and compared: somebody
 * else may have touched the same file, or watch it. Then all is read away, and made once more.
 *
 * An overflow is put into its place by a queue that is full, up to there, of events of files of
 * ours.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "fs/dentry.h"
#include "fs/fanotify_events.h"
#include "fs/watch.h"

#define ATTEMPTS 5

/* Descriptors come with an event: of the file, and of the process (FAN_REPORT_PIDFD). */
static void close_event(const char *buf, size_t n)
{
	struct fanotify_event_metadata event;
	struct fanotify_event_info_header info;
	int pidfd;

	memcpy(&event, buf, sizeof(event));
	if (event.fd >= 0)
		close(event.fd);
	for (size_t at = event.metadata_len; at + sizeof(info) + sizeof(pidfd) <= n;
	     at += info.len) {
		memcpy(&info, buf + at, sizeof(info));
		memcpy(&pidfd, buf + at + sizeof(info), sizeof(pidfd));
		if (info.info_type == FAN_EVENT_INFO_TYPE_PIDFD && pidfd >= 0)
			close(pidfd);
		if (info.len < sizeof(info))
			break;
	}
}

/* All that it holds. */
static int drain(int fd)
{
	char buf[8192];
	int queued = 0;

	while (ioctl(fd, FIONREAD, &queued) >= 0 && queued) {
		struct fanotify_event_metadata event;
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		for (size_t at = 0; at + sizeof(event) <= (size_t)n; at += event.event_len) {
			memcpy(&event, buf + at, sizeof(event));
			close_event(buf + at, event.event_len);
		}
	}
	return 0;
}

/* From the front. All have the same length, which is the first room that one fits into. */
static int drop_events(int fd, uint64_t count)
{
	char buf[512];
	size_t room = FAN_EVENT_METADATA_LEN;

	while (count) {
		ssize_t n = read(fd, buf, room);

		if (n < 0 && errno == EINVAL && room < sizeof(buf)) {
			room += 4;
			continue;
		}
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		close_event(buf, (size_t)n);
		count--;
	}
	return 0;
}

/* Of different files, since events of one are merged. */
static int make_events(int dir, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		_cleanup_(close_fd) int file = -EBADF;
		char name[16];

		snprintf(name, sizeof(name), "%08x", (unsigned int)i);
		file = openat(dir, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
		if (file < 0 || unlinkat(dir, name, 0) < 0)
			return -errno;
	}
	return 0;
}

/* Events of files in that directory of ours are told, or no more. */
static int mark_ours(struct restart *r, int fd, int dir, unsigned int how)
{
	char path[32];

	snprintf(path, sizeof(path), "self/fd/%d", dir);
	return fanotify_mark(fd, how, FAN_OPEN | FAN_EVENT_ON_CHILD, r->proc_fd, path) < 0 ? -errno
											   : 0;
}

/*
 * An overflow cannot be made but by one (fsnotify_insert_event()): the queue is filled with events
 * of files of ours, which are read away.
 */
int fanotify_make_overflow(struct restart *r, int fd, struct error *e)
{
	_cleanup_(close_fd) int dir = watch_make_fs();
	uint64_t limit;
	int res = watch_queue_limit(r, "fanotify", &limit, e);

	if (res < 0)
		return res;
	res = dir < 0 ? dir : mark_ours(r, fd, dir, FAN_MARK_ADD);
	if (res >= 0)
		res = make_events(dir, limit + 1);
	if (res >= 0)
		res = drop_events(fd, limit);
	if (res >= 0)
		res = mark_ours(r, fd, dir, FAN_MARK_REMOVE);
	return res < 0 ? error_errno(e, res, E_RESTORE, "cannot tell of lost events") : 0;
}

/* ---- events ---- */

static void free_raws(struct fanotify_raws *raws)
{
	vec_free(&raws->all);
}

struct replay {
	struct restart *r;
	int fd; /* the group */
	const Reprise__Fanotify *m;
	struct kernel_memory *k;
	uint64_t *pids;			    /* struct pid, of each event */
	struct fanotify_stand_in *stand_in; /* for the last that has ended, or NULL */
	pid_t stands_for;
};

static int open_object(struct replay *p, const Reprise__FanotifyEvent *m, struct fanotify_cause *x,
		       struct error *e)
{
	char path[32], name[NAME_MAX + 1];
	struct stat st;
	int r = watch_open(p->r, m->inode, &x->marked, path, sizeof(path), e);

	if (r < 0)
		return r;
	memcpy(name, m->name.data ? (const char *)m->name.data : "", m->name.len);
	name[m->name.len] = '\0';
	x->object = m->type == FANOTIFY_NAME
			    ? openat(x->marked, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)
			    : fcntl(x->marked, F_DUPFD_CLOEXEC, 0);
	if (x->object < 0 || fstat(x->object, &st) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot open %s/%s, of which it tells",
				   watch_name(p->r, m->inode), name);
	x->directory = S_ISDIR(st.st_mode);
	if (!x->directory && !S_ISREG(st.st_mode))
		return error_set(e, -ESTALE, E_RESTORE, "%s/%s is not what it was",
				 watch_name(p->r, m->inode), name);
	return 0;
}

static void close_object(struct fanotify_cause *x)
{
	close_fd(&x->object);
	close_fd(&x->marked);
}

static bool same_event(const struct fanotify_raw *a, const struct fanotify_raw *b)
{
	return a->type == b->type && a->pid == b->pid && a->fsid == b->fsid &&
	       FANOTIFY_MASK(a->mask) == b->mask && fanotify_handle_equal(&a->object, &b->object) &&
	       fanotify_handle_equal(&a->child, &b->child) &&
	       fanotify_handle_equal(&a->to, &b->to) && !strcmp(a->name, b->name) &&
	       !strcmp(a->to_name, b->to_name);
}

/* Is the last event that one? -EAGAIN: no. */
static int check_last(const struct replay *p, const struct fanotify_cause *x, uint64_t pid)
{
	_cleanup_(free_raws) struct fanotify_raws raws = {};
	int r = fanotify_events_read(p->k, p->fd, true, &raws);
	const struct fanotify_raw *raw = raws.all.v;
	struct fanotify_handle object, marked;
	uint64_t mount, dentry, fsid;

	if (r < 0)
		return r;
	if (raws.all.n != 1 || raw->type != x->event->type || raw->pid != pid ||
	    FANOTIFY_MASK(raw->mask) != x->event->mask)
		return -EAGAIN;
	if (raw->type == FANOTIFY_PATH) {
		r = dentry_of(p->k, x->object, &mount, &dentry);
		return r < 0 ? r : mount == raw->mount && dentry == raw->dentry ? 0 : -EAGAIN;
	}
	r = fanotify_handle_of(x->marked, &marked);
	if (r >= 0)
		r = fanotify_handle_of(x->object, &object);
	if (r >= 0)
		r = fanotify_fsid_of(x->object, &fsid);
	if (r < 0)
		return r;
	return fsid == raw->fsid && fanotify_handle_equal(&raw->object, &marked) &&
			       (!raw->child.len || fanotify_handle_equal(&raw->child, &object)) &&
			       (!*raw->name ||
				(strlen(raw->name) == x->event->name.len &&
				 !memcmp(raw->name, x->event->name.data, x->event->name.len)))
		       ? 0
		       : -EAGAIN;
}

/* Those of one that has ended stand together, mostly. */
static int stand_in_for(struct replay *p, pid_t vpid, struct error *e)
{
	int r;

	if (p->stand_in && p->stands_for == vpid)
		return 0;
	fanotify_stand_in_end(take_ptr(&p->stand_in));
	r = fanotify_stand_in_begin(p->r, vpid, &p->stand_in, e);
	p->stands_for = vpid;
	return r;
}

/* By the task, by who stands for it, or by us, whom the tasks do not see. */
static int cause(struct replay *p, struct fanotify_cause *x, pid_t *ret, struct error *e)
{
	const Reprise__FanotifyEvent *m = x->event;
	int r;

	x->t = m->pid ? restart_task_by_vtid(p->r, m->pid) : NULL;
	if (x->t ? x->t->msg->is_zombie : m->pid && !m->gone)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "an event of task %d, which is not there", m->pid);
	if (!m->pid && !p->r->pidns && !p->m->unprivileged)
		return error_set(e, -EOPNOTSUPP, E_RESTORE,
				 "it holds events of tasks in another pid namespace");
	if (m->pid && !x->t) {
		r = stand_in_for(p, m->pid, e);
		*ret = r < 0 ? 0 : fanotify_stand_in_pid(p->stand_in);
		return r < 0 ? r : fanotify_stand_in_cause(p->stand_in, x, e);
	}
	*ret = x->t ? x->t->tid : getpid();
	return fanotify_cause(x, e);
}

static int make_event(struct replay *p, size_t i, struct error *e)
{
	const Reprise__FanotifyEvent *m = p->m->events[i];
	_cleanup_(close_object) struct fanotify_cause x = {
		.r = p->r, .group = p->fd, .object = -EBADF, .marked = -EBADF, .event = m};
	pid_t pid = 0;
	int r = open_object(p, m, &x, e);

	if (r >= 0)
		r = cause(p, &x, &pid, e);
	if (r < 0)
		return r;
	r = fanotify_pid(p->k, pid, &p->pids[i]);
	return r < 0 ? r : check_last(p, &x, p->pids[i]);
}

struct acting {
	struct replay *p;
	pid_t pid;
};

static int act(void *arg, struct fanotify_cause *x, struct error *e)
{
	struct acting *a = arg;

	return cause(a->p, x, &a->pid, e);
}

static int make_event_on_double(struct replay *p, size_t i, struct error *e)
{
	_cleanup_(free_raws) struct fanotify_raws raws = {};
	struct acting a = {p, 0};
	struct fanotify_raw want;
	int r = fanotify_double_cause(p->r, p->fd, p->m, i, act, &a, &want, e);

	if (r >= 0)
		r = fanotify_pid(p->k, a.pid, &p->pids[i]);
	if (r >= 0)
		r = fanotify_events_read(p->k, p->fd, true, &raws);
	if (r < 0)
		return r;
	want.pid = p->pids[i];
	return raws.all.n == 1 && same_event(&raws.all.v[0], &want) ? 0 : -EAGAIN;
}

static int make_all(struct replay *p, size_t from, size_t to, struct error *e)
{
	int r = 0;

	for (; from < to && r >= 0; from++)
		r = p->m->events[from]->doubled ? make_event_on_double(p, from, e)
						: make_event(p, from, e);
	return r;
}

/* No other has come between, and none has been merged with what came before it. */
static int check_all(const struct replay *p)
{
	_cleanup_(free_raws) struct fanotify_raws raws = {};
	int r = fanotify_events_read(p->k, p->fd, false, &raws);

	if (r < 0)
		return r;
	if (raws.all.n != p->m->n_events)
		return -EAGAIN;
	for (size_t i = 0; i < raws.all.n; i++)
		if (raws.all.v[i].type != p->m->events[i]->type ||
		    raws.all.v[i].pid != p->pids[i] ||
		    FANOTIFY_MASK(raws.all.v[i].mask) != p->m->events[i]->mask)
			return -EAGAIN;
	return 0;
}

/* With an overflow at `lost`: [filling, the events before it, the overflow], and those behind it
 * when the filling has been read. */
static int make_with_overflow(struct replay *p, size_t lost, struct error *e)
{
	_cleanup_(close_fd) int dir = watch_make_fs();
	uint64_t limit;
	int r = watch_queue_limit(p->r, "fanotify", &limit, e);

	if (r < 0 || dir < 0)
		return r < 0 ? r : dir;
	if (lost > limit || p->m->n_events > limit + 1)
		return error_set(e, -ENOSPC, E_RESTORE,
				 "%zu unread events have no room in a queue of %llu "
				 "(/proc/sys/fs/fanotify/max_queued_events)",
				 p->m->n_events, (unsigned long long)limit);
	r = mark_ours(p->r, p->fd, dir, FAN_MARK_ADD);
	if (r >= 0)
		r = make_events(dir, limit - lost);
	if (r >= 0)
		r = make_all(p, 0, lost, e);
	if (r >= 0)
		r = make_events(dir, 1);
	if (r >= 0)
		r = drop_events(p->fd, limit - lost);
	if (r >= 0)
		r = mark_ours(p->r, p->fd, dir, FAN_MARK_REMOVE);
	return r < 0 ? r : make_all(p, lost + 1, p->m->n_events, e);
}

static int put_back(struct replay *p, struct error *e)
{
	size_t n = p->m->n_events, lost = n;
	int r;

	for (size_t i = 0; i < n && lost == n; i++)
		if (p->m->events[i]->type == FANOTIFY_OVERFLOW)
			lost = i;
	r = lost < n ? make_with_overflow(p, lost, e) : make_all(p, 0, n, e);
	return r < 0 ? r : check_all(p);
}

int fanotify_events_restart(struct restart *r, int fd, const Reprise__Fanotify *m, struct error *e)
{
	_cleanup_(free_ptr) uint64_t *pids = calloc(m->n_events + 1, sizeof(*pids));
	struct replay p = {.r = r, .fd = fd, .m = m, .pids = pids};
	int res = pids ? kernel_memory_open(r->proc_fd, &p.k, e) : -ENOMEM;

	for (int i = 0, again = 1; i < ATTEMPTS && res >= 0 && again; i++) {
		res = put_back(&p, e);
		again = res == -EAGAIN && e->code == ERROR_NONE;
		if (again && i + 1 < ATTEMPTS)
			res = drain(fd);
	}
	fanotify_stand_in_end(p.stand_in);
	kernel_memory_free(p.k);
	if (res == -EAGAIN)
		return error_set(e, -EBUSY, E_RESTORE,
				 "unread events cannot be put back: they come out otherwise, since "
				 "somebody else uses or watches the files");
	return res < 0 ? error_errno(e, res, E_RESTORE, "cannot put unread events back") : 0;
}
