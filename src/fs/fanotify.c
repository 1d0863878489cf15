/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of fanotify with their marks on inodes, mounts and file systems. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "fs/double_fs.h"
#include "fs/fanotify_events.h"
#include "fs/fdinfo.h"
#include "fs/file_kinds.h"
#include "fs/opener.h"
#include "fs/watch.h"

#define PERMISSION_EVENTS (FAN_OPEN_PERM | FAN_ACCESS_PERM | FAN_OPEN_EXEC_PERM | FAN_PRE_ACCESS)
#define CLASSES		  (FAN_CLASS_CONTENT | FAN_CLASS_PRE_CONTENT)
#define MARK_ON		  (FAN_MARK_MOUNT | FAN_MARK_FILESYSTEM)
#define MARK_IGNORE	  (FAN_MARK_IGNORED_SURV_MODIFY | FAN_MARK_IGNORE)
#define MARK_FLAGS	  (MARK_IGNORE | FAN_MARK_EVICTABLE)

#define UNPRIVILEGED 0x80000000u /* FANOTIFY_UNPRIV of include/linux/fanotify.h */

static bool fanotify_match(const struct file_seen *f)
{
	return !strcmp(f->link, "anon_inode:[fanotify]");
}

/* A mark until all files have been seen. */
struct fanotify_seen {
	struct watch_inode inode;
	int mount;
	Reprise__FanotifyMark *msg;
};

/* The same of a group, with its events as the kernel has them. */
struct fanotify_seen_group {
	struct fanotify_seen *marks;
	struct fanotify_raw *events;
	size_t n_events;
};

/* fs/notify/fdinfo.c, fanotify_fdinfo() */
static int parse_mark(const char *text, struct fanotify_seen *w)
{
	Reprise__FanotifyMark *m = w->msg;
	unsigned int sdev = 0;
	const char *rest;
	char line[512];

	fdinfo_copy_line(text, line, sizeof(line));
	rest = strstr(line, "mflags:");
	if (sscanf(line, "fanotify ino:%" SCNx64 " sdev:%x", &w->inode.ino, &sdev) == 2)
		m->on = 0;
	else if (sscanf(line, "fanotify mnt_id:%x", (unsigned int *)&w->mount) == 1)
		m->on = FAN_MARK_MOUNT;
	else if (sscanf(line, "fanotify sdev:%x", &sdev) == 1)
		m->on = FAN_MARK_FILESYSTEM;
	else
		return strncmp(line, "fanotify mnt_ns:", 16) ? -EINVAL : -EOPNOTSUPP;
	if (!rest || sscanf(rest, "mflags:%x mask:%x ignored_mask:%x", &m->flags, &m->mask,
			    &m->ignored) != 3)
		return -EINVAL;
	w->inode.dev = watch_dev(sdev);
	return watch_parse_handle(line, &w->inode);
}

static size_t count_marks(const char *text)
{
	size_t n = 0;

	for (; fdinfo_find_line(&text, "fanotify "); fdinfo_skip_line(&text))
		n++;
	return n;
}

static int read_marks(const struct file_seen *f, Reprise__Fanotify *m,
		      struct fanotify_seen_group *group, struct scratch *s, struct error *e)
{
	size_t n = count_marks(f->fdinfo);
	struct fanotify_seen *seen = scratch_alloc(s, (n + 1) * sizeof(*seen));
	const char *text = f->fdinfo;
	int r;

	m->marks = scratch_alloc(s, (n + 1) * sizeof(*m->marks));
	if (!seen || !m->marks)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for marks");
	if (!fdinfo_find_line(&text, "fanotify flags:") ||
	    sscanf(text, "fanotify flags:%x event-flags:%x", &m->flags, &m->event_flags) != 2)
		return error_set(e, -EINVAL, E_SYSTEM, "its fdinfo is not understood");
	for (fdinfo_skip_line(&text); fdinfo_find_line(&text, "fanotify ");
	     fdinfo_skip_line(&text)) {
		struct fanotify_seen *w = &seen[m->n_marks];

		w->msg = scratch_message(s, Reprise__FanotifyMark, reprise__fanotify_mark__init);
		if (!w->msg)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a mark");
		r = parse_mark(text, w);
		if (r == -EOPNOTSUPP)
			return error_set(e, r, E_FILE_STATE,
					 "it watches what is mounted in a namespace "
					 "(FAN_MARK_MNTNS)");
		if (r < 0 || w->msg->flags & ~(unsigned int)MARK_FLAGS)
			return error_set(e, -EINVAL, E_SYSTEM, "its fdinfo is not understood");
		m->marks[m->n_marks++] = w->msg;
	}
	group->marks = seen;
	return 0;
}

/*
 * Whoever made it without CAP_SYS_ADMIN is not told who causes events, whoever reads them. Where
 * kernel memory cannot be read, nobody who restarts has that capability either.
 */
static bool made_unprivileged(struct checkpoint *c, int fd)
{
	struct kernel_memory *k;
	struct error ignored = {};
	unsigned int flags = 0;
	int offsets[2];

	if (files_kernel_memory(c, &k, &ignored) < 0)
		return false;
	offsets[0] = kernel_offset(k, "file", "private_data");
	offsets[1] = kernel_offset(k, "fsnotify_group", "fanotify_data.flags");
	return kernel_of_file(k, fd, offsets, 2, &flags, sizeof(flags)) >= 0 &&
	       flags & UNPRIVILEGED;
}

/* What cannot be caused again is lost, if that was said; the application is told. */
static int refuse_events(struct checkpoint *c, Reprise__Fanotify *m, const struct error *why,
			 struct error *e)
{
	m->n_events = 0;
	m->overflow = c->inotify_overflow && !(m->flags & FAN_UNLIMITED_QUEUE);
	if (m->overflow)
		return 0;
	return error_set(e, -EBUSY, E_FILE_EVENTS, "%s%s", why->text,
			 m->flags & FAN_UNLIMITED_QUEUE
				 ? "; nor can its queue overflow (FAN_UNLIMITED_QUEUE)"
				 : "");
}

/* What they are about is found when all files have been seen. */
static int look_at_events(struct checkpoint *c, struct file_seen *f, Reprise__Fanotify *m,
			  struct fanotify_seen_group *group, struct scratch *scratch,
			  struct error *e)
{
	struct fanotify_raws raws = {};
	struct kernel_memory *k;
	struct error why = {}, unread = {};
	int queued = 0, r;

	if (ioctl(f->local, FIONREAD, &queued) < 0)
		return error_errno(e, -errno, E_SYSTEM, "FIONREAD");
	if (!queued || c->checking)
		return 0;
	r = files_kernel_memory(c, &k, &why);
	if (r >= 0)
		r = fanotify_events_read(k, f->local, false, &raws);
	if (r >= 0) {
		group->events = scratch_copy(scratch, raws.all.v, raws.all.n * sizeof(*raws.all.v));
		group->n_events = group->events ? raws.all.n : 0;
	}
	vec_free(&raws.all);
	if (r >= 0)
		return group->events ? 0
				     : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for events");
	error_set(
		&unread, r, E_FILE_EVENTS,
		"it holds events that have not been read yet, and the memory of the kernel, which "
		"alone tells of them, cannot be read%s%s%s",
		*why.text ? " (" : "", why.text, *why.text ? ")" : "");
	return refuse_events(c, m, &unread, e);
}

static int fanotify_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			       struct scratch *scratch, struct error *e)
{
	struct fanotify_seen_group *group = scratch_alloc(scratch, sizeof(*group));
	int r;

	msg->fanotify = scratch_message(scratch, Reprise__Fanotify, reprise__fanotify__init);
	if (!msg->fanotify || !group)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a fanotify group");
	f->entry->private = (uint64_t)(uintptr_t)group;
	r = read_marks(f, msg->fanotify, group, scratch, e);
	if (r < 0)
		return r;
	msg->fanotify->unprivileged = made_unprivileged(c, f->local);
	if (msg->fanotify->flags & CLASSES)
		r = fanotify_permission_save(c, f->local, e);
	return r < 0 ? r : look_at_events(c, f, msg->fanotify, group, scratch, e);
}

/* The root of a mount, by its number or that of its device. */
static int find_mount(struct checkpoint *c, struct fanotify_seen *w, uint64_t *ret_inode,
		      struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	const char *line;
	ssize_t n = procfs_read(c->proc_fd, &text, e, "self/mountinfo");

	if (n < 0)
		return (int)n;
	for (line = text; *line; fdinfo_skip_line(&line)) {
		_cleanup_(close_fd) int fd = -EBADF;
		_cleanup_(free_ptr) char *link = NULL;
		unsigned int ma, mi;
		char point[4096];
		int id, r;

		if (sscanf(line, "%d %*d %u:%u %*s %4095s", &id, &ma, &mi, point) != 4)
			continue;
		if (w->msg->on == FAN_MARK_MOUNT ? id != w->mount : makedev(ma, mi) != w->inode.dev)
			continue;
		fd = open(point, O_PATH | O_CLOEXEC);
		if (fd < 0)
			continue;
		w->inode.dev = makedev(ma, mi);
		r = procfs_readlink(c->proc_fd, &link, e, "self/fd/%d", fd);
		return r < 0 ? r : inode_checkpoint(c, NULL, fd, link, ret_inode, e);
	}
	return error_set(e, -ESTALE, E_FILE_STATE,
			 "it has a mark on a mount or file system that is not found");
}

static int save_events(struct checkpoint *c, Reprise__Fanotify *m,
		       const struct fanotify_seen_group *group, struct error *e)
{
	_cleanup_(free_ptr) dev_t *devices = calloc(m->n_marks + 1, sizeof(*devices));
	const struct fanotify_raws raws = {{group->events, group->n_events, group->n_events}};
	struct error why = {};
	size_t n = 0;
	int r;

	if (!devices)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for marks");
	for (size_t i = 0; i < m->n_marks; i++) {
		dev_t dev = group->marks[i].inode.dev;
		size_t k = 0;

		while (k < n && devices[k] != dev)
			k++;
		if (k == n)
			devices[n++] = dev;
	}
	r = fanotify_events_save(
		c, m, &raws, &(struct fanotify_devices){devices, n, !double_fs_possible()}, &why);
	if (r < 0 && why.code != E_FILE_EVENTS)
		return error_set(e, r, why.code, "%s", why.text);
	return r < 0 ? refuse_events(c, m, &why, e) : 0;
}

static int save_group(struct checkpoint *c, const struct file_entry *f, struct error *e)
{
	const struct fanotify_seen_group *group = (const void *)(uintptr_t)f->private;
	struct fanotify_seen *seen = group->marks;
	int r = 0;

	for (size_t i = 0; i < f->msg->fanotify->n_marks && r >= 0; i++) {
		Reprise__FanotifyMark *m = seen[i].msg;

		if (m->on)
			r = find_mount(c, &seen[i], &m->inode, e);
		else
			r = watch_save(c, f, &seen[i].inode, "one of its marks", &m->inode, e);
	}
	if (r >= 0 && group->n_events)
		r = save_events(c, f->msg->fanotify, group, e);
	return r;
}

static int fanotify_checkpoint_all(struct checkpoint *c, struct error *e)
{
	return file_for_each(c, &fanotify_file_ops, save_group, e);
}

/* ---- restart ---- */

static int fanotify_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	if (!msg->fanotify || !fanotify_events_possible(r, msg->fanotify) ||
	    (msg->fanotify->overflow && msg->fanotify->flags & FAN_UNLIMITED_QUEUE))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper fanotify group");
	for (size_t i = 0; i < msg->fanotify->n_marks; i++) {
		const Reprise__FanotifyMark *m = msg->fanotify->marks[i];
		int res = inode_validate(r, m->inode, e);

		if (res < 0)
			return res;
		if ((m->on && m->on != FAN_MARK_MOUNT && m->on != FAN_MARK_FILESYSTEM) ||
		    (m->flags & ~(unsigned int)MARK_FLAGS) ||
		    ((m->mask | m->ignored) & PERMISSION_EVENTS &&
		     !(msg->fanotify->flags & CLASSES)))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper mark");
	}
	return 0;
}

/* Those of a group that decides wait until all is opened. */
static int mark(struct restart *r, int fd, bool late, unsigned int flags, uint64_t mask, int target,
		struct error *e)
{
	char path[32];

	if (!mask)
		return 0;
	if (late)
		return fanotify_mark_late(r, fd, flags, mask, target, e);
	snprintf(path, sizeof(path), "self/fd/%d", target);
	return fanotify_mark(fd, FAN_MARK_ADD | flags, mask, r->proc_fd, path) < 0 ? -errno : 0;
}

static int add_mark(struct restart *r, int fd, bool late, const Reprise__FanotifyMark *m,
		    struct error *e)
{
	_cleanup_(close_fd) int target = -EBADF;
	unsigned int flags = m->on | (m->flags & FAN_MARK_EVICTABLE);
	unsigned int ignore = m->flags & FAN_MARK_IGNORE ? FAN_MARK_IGNORE : FAN_MARK_IGNORED_MASK;
	uint32_t told = m->mask;
	struct stat st;
	char path[32];
	int res = watch_open(r, m->inode, &target, path, sizeof(path), e);

	if (res < 0)
		return res;
	/* Of other files the kernel adds it where it reports parents, and refuses it from us. */
	if (fstat(target, &st) >= 0 && !S_ISDIR(st.st_mode))
		told &= ~(uint32_t)FAN_EVENT_ON_CHILD;
	res = mark(r, fd, late, flags, told, target, e);
	if (res >= 0)
		res = mark(r, fd, late, flags | ignore | (m->flags & FAN_MARK_IGNORED_SURV_MODIFY),
			   m->ignored, target, e);
	return res < 0 ? error_errno(e, res, E_RESTORE, "cannot mark %s", watch_name(r, m->inode))
		       : 0;
}

/* FAN_CLOEXEC would be told for ever. */
static int init(const Reprise__Fanotify *msg)
{
	_cleanup_(close_fd) int fd = fanotify_init(msg->flags, msg->event_flags);

	return fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : take_fd(&fd);
}

struct making {
	const Reprise__Fanotify *msg;
	int result;
};

static void *make_unprivileged(void *arg)
{
	const uint64_t admin = 1ULL << CAP_SYS_ADMIN;
	struct making *m = arg;
	uint64_t were;

	m->result = capabilities_in_effect(0, false, &were);
	if (m->result >= 0 && (were & admin))
		m->result = capabilities_in_effect(were & ~admin, true, &were);
	if (m->result >= 0)
		m->result = init(m->msg);
	return NULL;
}

/* Without that capability in a thread, which ends with its credentials. */
static int make_group(const Reprise__Fanotify *msg)
{
	struct making m = {.msg = msg};
	pthread_t thread;
	int r;

	if (!msg->unprivileged)
		return init(msg);
	r = pthread_create(&thread, NULL, make_unprivileged, &m);
	if (r)
		return -r;
	pthread_join(thread, NULL);
	return m.result;
}

static int fanotify_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			    struct error *e)
{
	const Reprise__Fanotify *m = msg->fanotify;
	_cleanup_(close_fd) int fd = make_group(m);
	int res;

	if (fd < 0)
		return error_errno(e, fd, E_RESTORE, "cannot make a fanotify group");
	res = m->overflow ? fanotify_make_overflow(r, fd, e) : 0;
	if (res < 0)
		return res;
	*ret_fd = take_fd(&fd);
	return 0;
}

/* Before anybody in the tree watches anything. */
static int fanotify_finish(struct restart *r, uint64_t id, const Reprise__File *msg, int fd,
			   struct error *e)
{
	return msg->fanotify->n_events ? fanotify_events_restart(r, fd, msg->fanotify, e) : 0;
}

static int add_marks(struct restart *r, int fd, const Reprise__Fanotify *m, struct error *e)
{
	int res = 0;

	for (size_t i = 0; i < m->n_marks && res >= 0; i++)
		res = add_mark(r, fd, m->flags & CLASSES, m->marks[i], e);
	return res;
}

/* When all files are open: what the restart does to them is nobody's business. */
static int fanotify_restart_all(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (f, &r->files->files)
		if (f->ops == &fanotify_file_ops && res >= 0)
			res = add_marks(r, f->fd, f->msg->fanotify, e);
	return res;
}

static void fanotify_restart_end(struct restart *r)
{
	fanotify_double_end(take_ptr(&r->files->fanotify_double));
}

static void fanotify_describe(const Reprise__File *msg, char *buf, size_t size)
{
	const Reprise__Fanotify *m = msg->fanotify;

	if (m && m->n_events)
		snprintf(buf, size, "%zu marks, %zu unread events", m->n_marks, m->n_events);
	else
		snprintf(buf, size, "%zu marks%s", m ? m->n_marks : 0,
			 m && m->overflow ? ", unread events were lost" : "");
}

const struct file_ops fanotify_file_ops = {
	.kind = FILE_FANOTIFY,
	.name = "fanotify",
	.support =
		"marks on files, mounts and file systems; by root, unread events (of files that were made, "
		"removed or renamed: on ext4), others are refused, or reported as lost "
		"(`--inotify=overflow`); groups for permission events if nobody waits for an answer",
	.match = fanotify_match,
	.checkpoint = fanotify_checkpoint,
	.checkpoint_all = fanotify_checkpoint_all,
	.validate = fanotify_validate,
	.restart = fanotify_restart,
	.finish = fanotify_finish,
	.restart_all = fanotify_restart_all,
	.restart_end = fanotify_restart_end,
	.describe = fanotify_describe,
};
