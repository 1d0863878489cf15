/* SPDX-License-Identifier: Apache-2.0 */
/* Watches of inotify: see watch.c for how the watched inodes are found. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/fdinfo.h"
#include "fs/file_kinds.h"
#include "fs/inotify_events.h"
#include "fs/watch.h"

static bool inotify_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:inotify") || !strcmp(f->link, "anon_inode:[inotify]");
}

/* A watch until all files have been seen: it may be on one that was removed. */
struct inotify_seen {
	struct watch_inode inode;
	Reprise__InotifyWatch *msg;
	bool closed; /* a pipe that nobody has open */
};

/* fs/notify/fdinfo.c: "inotify wd:1 ino:2f sdev:fe00000 mask:fc6 ignored_mask:0 fhandle-bytes:8
 * ...". */
static int parse_watch(const char *text, struct inotify_seen *w)
{
	unsigned int sdev, wd;
	char line[512];

	fdinfo_copy_line(text, line, sizeof(line));
	if (sscanf(line, "inotify wd:%x ino:%" SCNx64 " sdev:%x mask:%x", &wd, &w->inode.ino, &sdev,
		   &w->msg->mask) != 4)
		return -EINVAL;
	w->msg->wd = (int32_t)wd;
	w->inode.dev = watch_dev(sdev);
	return watch_parse_handle(line, &w->inode);
}

static size_t count_watches(const char *text)
{
	size_t n = 0;

	for (; fdinfo_find_line(&text, "inotify "); fdinfo_skip_line(&text))
		n++;
	return n;
}

static int read_watches(const struct file_seen *f, Reprise__Inotify *m, struct scratch *s,
			struct error *e)
{
	size_t n = count_watches(f->fdinfo);
	struct inotify_seen *seen = scratch_alloc(s, (n + 1) * sizeof(*seen));
	const char *text = f->fdinfo;

	m->watches = scratch_alloc(s, (n + 1) * sizeof(*m->watches));
	if (!seen || !m->watches)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for watches");
	for (; fdinfo_find_line(&text, "inotify "); fdinfo_skip_line(&text)) {
		struct inotify_seen *w = &seen[m->n_watches];

		w->msg = scratch_message(s, Reprise__InotifyWatch, reprise__inotify_watch__init);
		if (!w->msg)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a watch");
		if (parse_watch(text, w) < 0)
			return error_set(e, -EINVAL, E_SYSTEM, "its fdinfo is not understood");
		m->watches[m->n_watches++] = w->msg;
	}
	f->entry->private = (uint64_t)(uintptr_t)seen;
	return 0;
}

static void find_closed(struct checkpoint *c, const struct file_seen *f, const Reprise__Inotify *m)
{
	struct inotify_seen *seen = (struct inotify_seen *)(uintptr_t)f->entry->private;
	const dev_t pipes = inotify_device_of_pipes();

	for (size_t i = 0; i < m->n_watches; i++)
		seen[i].closed =
			seen[i].inode.dev == pipes &&
			inotify_watches_closed(c, f->local, seen[i].msg->wd, seen[i].inode.ino);
}

/* Removed when its number had been seen already. */
static void forget_watch(struct inotify_seen *seen, Reprise__Inotify *m, int wd)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_watches; i++)
		if (m->watches[i]->wd != wd) {
			seen[n] = seen[i];
			m->watches[n++] = m->watches[i];
		}
	m->n_watches = n;
}

static void forget_gone(struct inotify_seen *seen, Reprise__Inotify *m)
{
	for (size_t i = 0; i < m->n_events; i++)
		if (m->events[i]->mask == IN_IGNORED)
			forget_watch(seen, m, m->events[i]->wd);
}

/* What cannot be made again is lost, if that was said; the application is told. */
static int save_events(struct checkpoint *c, struct file_seen *f, Reprise__Inotify *m,
		       struct scratch *scratch, struct error *e)
{
	struct error why = {};
	int queued = 0, r = inotify_events_save(c, f->local, m, scratch, &why);

	if (ioctl(f->local, FIONREAD, &queued) < 0)
		return error_errno(e, -errno, E_SYSTEM, "FIONREAD");
	if (r >= 0 || !queued || c->checking)
		return 0;
	m->n_events = 0;
	m->overflow = c->inotify_overflow;
	if (m->overflow)
		return 0;
	return why.code == E_FILE_EVENTS
		       ? error_set(e, r, E_FILE_EVENTS, "%s", why.text)
		       : error_set(e, -EBUSY, E_FILE_EVENTS,
				   "it holds events that have not been read yet, and only the "
				   "memory of the kernel tells which (%s)",
				   why.text);
}

static int inotify_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			      struct scratch *scratch, struct error *e)
{
	int r;

	msg->inotify = scratch_message(scratch, Reprise__Inotify, reprise__inotify__init);
	if (!msg->inotify)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an inotify instance");
	r = read_watches(f, msg->inotify, scratch, e);
	if (r < 0)
		return r;
	find_closed(c, f, msg->inotify);
	r = save_events(c, f, msg->inotify, scratch, e);
	if (r >= 0)
		forget_gone((struct inotify_seen *)(uintptr_t)f->entry->private, msg->inotify);
	return r;
}

static int save_watches(struct checkpoint *c, const struct file_entry *f, struct error *e)
{
	struct inotify_seen *seen = (struct inotify_seen *)(uintptr_t)f->private;
	int r = 0;

	for (size_t i = 0; i < f->msg->inotify->n_watches && r >= 0; i++) {
		char what[32];

		if (seen[i].closed || watch_is_gone(c, &seen[i].inode))
			continue;
		snprintf(what, sizeof(what), "its watch %d", seen[i].msg->wd);
		r = watch_save(c, f, &seen[i].inode, what, &seen[i].msg->inode, e);
	}
	return r;
}

static int inotify_checkpoint_all(struct checkpoint *c, struct error *e)
{
	return file_for_each(c, &inotify_file_ops, save_watches, e);
}

/* ---- restart ---- */

static int inotify_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->inotify)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an inotify without its message");
	for (size_t i = 0; i < msg->inotify->n_watches; i++) {
		uint64_t inode = msg->inotify->watches[i]->inode;
		int res = inode ? inode_validate(r, inode, e) : 0;

		if (res < 0)
			return res;
		if (msg->inotify->watches[i]->wd < 1)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a watch without number");
	}
	if (msg->inotify->next_wd < 0 || inotify_events_possible(msg->inotify, e) < 0)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "impossible events of inotify");
	return 0;
}

/* More events than the queue has room for: two kinds, since equal ones would be merged. */
static int make_events(struct restart *r, int fd, int file, uint64_t count)
{
	char path[32], byte = 0;
	int wd;

	snprintf(path, sizeof(path), "self/fd/%d", file);
	wd = inotify_add_watch(fd, path, IN_MODIFY | IN_ACCESS);
	if (wd < 0)
		return -errno;
	for (uint64_t i = 0; i < count; i++)
		if ((i % 2 ? pread(file, &byte, 1, 0) : pwrite(file, &byte, 1, 0)) != 1)
			return -EIO;
	return inotify_rm_watch(fd, wd) < 0 ? -errno : 0;
}

/* All but the last, which is IN_Q_OVERFLOW. */
static int drop_events(int fd)
{
	_cleanup_(free_ptr) char *buf = malloc(1 << 16);
	const int last = sizeof(struct inotify_event);
	int queued;

	for (;;) {
		if (!buf || ioctl(fd, FIONREAD, &queued) < 0 || queued < last)
			return -EIO;
		if (queued == last)
			return 0;
		queued -= last;
		if (read(fd, buf, queued < 1 << 16 ? (size_t)queued : 1 << 16) <= 0)
			return -errno;
	}
}

/*
 * An overflow cannot be made but by one (fsnotify_insert_event()): the queue is filled with events
 * of a file of ours, which are read away.
 */
static int make_overflow(struct restart *r, int fd, struct error *e)
{
	_cleanup_(close_fd) int memory = memfd_create("events", MFD_CLOEXEC);
	_cleanup_(close_fd) int file =
		memory < 0 ? -1 : reopen_fd(r->proc_fd, memory, O_RDWR | O_CLOEXEC);
	uint64_t limit;
	int res = watch_queue_limit(r, "inotify", &limit, e);

	if (res < 0)
		return res;
	if (file < 0)
		return error_errno(e, memory < 0 ? -errno : file, E_SYSTEM, "cannot make a memfd");
	res = make_events(r, fd, file, limit + 1);
	if (res >= 0)
		res = drop_events(fd);
	return res < 0 ? error_errno(e, res, E_RESTORE, "cannot tell of lost events") : 0;
}

/*
 * In the place of what has gone: a pipe that nobody has open. Its inode stays as long as it is
 * watched, and nothing happens to it any more; a file that was removed would say so.
 */
static int open_gone(struct restart *r, int *ret_fd, char *path, size_t size, struct error *e)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make a pipe");
	*ret_fd = reopen_fd(r->proc_fd, ends[0], O_PATH | O_CLOEXEC);
	close(ends[0]);
	close(ends[1]);
	if (*ret_fd < 0)
		return error_errno(e, *ret_fd, E_RESTORE, "cannot open a pipe");
	snprintf(path, size, "self/fd/%d", *ret_fd);
	return 0;
}

static int add_watch(struct restart *r, int fd, const Reprise__InotifyWatch *m, struct error *e)
{
	_cleanup_(close_fd) int target = -EBADF;
	char path[32];
	int wd, res;

	if (ioctl(fd, INOTIFY_IOC_SETNEXTWD, m->wd) < 0)
		return error_errno(e, -errno, E_KERNEL_TOO_OLD,
				   "cannot choose the number of a watch");
	res = m->inode ? watch_open(r, m->inode, &target, path, sizeof(path), e)
		       : open_gone(r, &target, path, sizeof(path), e);
	if (res < 0)
		return res;
	wd = inotify_add_watch(fd, path, m->mask);
	if (wd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot watch %s",
				   m->inode ? watch_name(r, m->inode) : "what has gone");
	if (wd != m->wd)
		return error_set(e, -EEXIST, E_RESTORE, "watch %d became %d", m->wd, wd);
	return 0;
}

/* Watches are added by a path, and /proc may be another one than ours by now. */
static int in_proc(struct restart *r, int fd, const Reprise__Inotify *m,
		   int (*fn)(struct restart *r, int fd, const Reprise__Inotify *m, struct error *e),
		   struct error *e)
{
	_cleanup_(close_fd) int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int res;

	if (here < 0 || fchdir(r->proc_fd) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot enter /proc");
	res = fn(r, fd, m, e);
	if (fchdir(here) < 0 && res >= 0)
		res = error_errno(e, -errno, E_SYSTEM, "cannot leave /proc");
	return res;
}

static int put_events(struct restart *r, int fd, const Reprise__Inotify *m, struct error *e)
{
	return m->overflow ? make_overflow(r, fd, e) : inotify_events_restart(r, fd, m, e);
}

static int inotify_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			   struct error *e)
{
	_cleanup_(close_fd) int fd = inotify_init1(IN_CLOEXEC);
	int res;

	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make an inotify instance");
	res = in_proc(r, fd, msg->inotify, put_events, e);
	if (res >= 0)
		*ret_fd = take_fd(&fd);
	return res < 0 ? res : 0;
}

static int add_watches(struct restart *r, int fd, const Reprise__Inotify *m, struct error *e)
{
	int next = m->next_wd, res = 0;

	for (size_t i = 0; i < m->n_watches && res >= 0; i++) {
		res = add_watch(r, fd, m->watches[i], e);
		if (!m->next_wd && m->watches[i]->wd >= next && m->watches[i]->wd < INT_MAX)
			next = m->watches[i]->wd + 1;
	}
	/* No number comes again before its time. */
	if (res >= 0 && next && ioctl(fd, INOTIFY_IOC_SETNEXTWD, next) < 0)
		res = error_errno(e, -errno, E_KERNEL_TOO_OLD,
				  "cannot choose the number of a watch");
	return res;
}

/* When all files are open: what the restart does to them is nobody's business. */
static int inotify_restart_all(struct restart *r, struct error *e)
{
	vec_for_each (f, &r->files->files) {
		int res = f->ops == &inotify_file_ops
				  ? in_proc(r, f->fd, f->msg->inotify, add_watches, e)
				  : 0;

		if (res < 0)
			return res;
	}
	return 0;
}

static void inotify_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__Inotify *m = msg->inotify;

	if (m && m->overflow)
		snprintf(buf, size, "%zu watches, unread events were lost", m->n_watches);
	else if (m && m->n_events)
		snprintf(buf, size, "%zu watches, %zu unread events", m->n_watches, m->n_events);
	else
		snprintf(buf, size, "%zu watches", m ? m->n_watches : 0);
}

const struct file_ops inotify_file_ops = {
	.kind = FILE_INOTIFY,
	.name = "inotify",
	.support =
		"watches with their numbers; unread events by root, else refused, or reported as lost (`--inotify=overflow`)",
	.match = inotify_match,
	.checkpoint = inotify_checkpoint,
	.checkpoint_all = inotify_checkpoint_all,
	.validate = inotify_validate,
	.restart = inotify_restart,
	.restart_all = inotify_restart_all,
	.describe = inotify_describe,
};
