/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX message queues (mq_overview(7)): descriptors of files on an internal mount
 * of the IPC namespace. Those who wait in mq_timedsend(2) and mq_timedreceive(2) issue their call
 * again; the time-outs are absolute.
 */
#include "ipc/mqueue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/context.h"
#include "ipc/sysv.h"

#define MQUEUE_MAGIC  0x19800202
#define MQUEUE_SIZE   80 /* FILENT_SIZE: of every queue as a file */
#define SUFFIX	      " (deleted)"
#define STATUS_FORMAT "QSIZE:%lu NOTIFY:%d SIGNO:%d NOTIFY_PID:%d"

int mqueue_attr(int fd, struct mq_attr_kernel *attr)
{
	return syscall(SYS_mq_getsetattr, fd, NULL, attr) < 0 ? -errno : 0;
}

static bool mqueue_match(const struct file_seen *f)
{
	struct statfs fs;

	return S_ISREG(f->st.st_mode) && f->st.st_size == MQUEUE_SIZE &&
	       fstatfs(f->local, &fs) == 0 && fs.f_type == MQUEUE_MAGIC;
}

/* ---- the queue ---- */

static int save_name(const struct file_seen *f, Reprise__Mqueue *m, struct scratch *s,
		     struct error *e)
{
	const char *slash = strrchr(f->link, '/');
	size_t len, suffix = strlen(SUFFIX);

	m->unlinked = f->st.st_nlink == 0;
	m->name = scratch_string(s, slash ? slash + 1 : f->link);
	if (!m->name)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a name");
	len = strlen(m->name);
	if (m->unlinked && len > suffix && !strcmp(m->name + len - suffix, SUFFIX))
		m->name[len - suffix] = '\0';
	return 0;
}

/* In ours: is it the queue of that name here? One that nobody may read cannot be opened to see. */
static int check_namespace(const struct file_seen *f, const Reprise__Mqueue *m, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	struct stat st;

	if (m->unlinked)
		return 0;
	fd = (int)syscall(SYS_mq_open, m->name, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0, NULL);
	if (fd < 0 && errno == EACCES)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_dev != f->st.st_dev || st.st_ino != f->st.st_ino)
		return error_set(e, -EXDEV, E_IPC_STATE,
				 "the message queue belongs to another IPC namespace");
	return 0;
}

static int find_namespace(struct checkpoint *c, const struct file_seen *f, Reprise__Mqueue *m,
			  struct error *e)
{
	const struct mqueue_place *place;
	int r = mqueue_find_places(c, e);

	if (r < 0)
		return r;
	place = mqueue_place_of(c, f->st.st_dev);
	m->namespace_ = place ? place->space : 0;
	return place ? 0 : check_namespace(f, m, e);
}

static bool in_tree(const struct checkpoint *c, pid_t pid)
{
	vec_for_each (p, &c->processes)
		if (p->frozen->pid == pid)
			return true;
	return false;
}

/* A process outside that is notified uses the queue as well. */
static int save_notify(struct checkpoint *c, int fd, Reprise__Mqueue *m, const int status[3],
		       struct scratch *s, struct error *e)
{
	if (!status[2])
		return 0;
	if (in_tree(c, status[2]) && checkpoint_refer(c, status[2], e) < 0)
		return -EBUSY;
	if (in_tree(c, status[2]))
		return mqueue_notify_save(c, fd, m, status[0], status[1], status[2], s, e);
	m->shared = true;
	return 0;
}

static int save_messages(struct checkpoint *c, int fd, Reprise__Mqueue *m, struct scratch *s,
			 struct error *e)
{
	struct mq_attr_kernel attr;

	if (mqueue_attr(fd, &attr) < 0)
		return error_errno(e, -errno, E_IPC_STATE, "cannot read its attributes");
	m->maxmsg = (uint64_t)attr.maxmsg;
	m->msgsize = (uint64_t)attr.msgsize;
	if (!attr.curmsgs)
		return 0;
	if (!ipc_kernel_memory(c))
		return error_set(
			e, -EOPNOTSUPP, E_IPC_STATE,
			"it holds %ld messages, which cannot be read without taking them: %s",
			attr.curmsgs, c->ipc->kernel_error.text);
	return c->checking ? 0 : mqueue_messages(c->ipc->kernel, fd, m, s, e);
}

/* Reading a queue as a file tells its state; a description of our own, as the position changes. */
static int read_status(struct checkpoint *c, const struct file_seen *f, int status[3],
		       struct error *e)
{
	_cleanup_(close_fd) int fd = reopen_fd(c->proc_fd, f->local, O_RDONLY | O_CLOEXEC);
	char text[MQUEUE_SIZE + 1] = "";
	unsigned long size;

	if (fd < 0 || pread(fd, text, sizeof(text) - 1, 0) <= 0)
		return error_errno(e, fd < 0 ? fd : -errno, E_IPC_STATE,
				   "cannot read whom it notifies");
	if (sscanf(text, STATUS_FORMAT, &size, &status[0], &status[1], &status[2]) != 4)
		return error_set(e, -EINVAL, E_IPC_STATE, "its state is not understood: %s", text);
	return 0;
}

static int save_queue(struct checkpoint *c, const struct file_seen *f, struct mqueue_entry *entry,
		      struct scratch *s, struct error *e)
{
	Reprise__Mqueue *m = scratch_message(s, Reprise__Mqueue, reprise__mqueue__init);
	int status[3], r;

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a message queue");
	entry->msg = m;
	m->uid = f->st.st_uid;
	m->gid = f->st.st_gid;
	m->mode = f->st.st_mode & 07777;
	m->ino = f->st.st_ino;
	r = save_name(f, m, s, e);
	if (r >= 0)
		r = find_namespace(c, f, m, e);
	if (r >= 0)
		r = read_status(c, f, status, e);
	if (r >= 0)
		r = save_messages(c, f->local, m, s, e);
	return r < 0 ? r : save_notify(c, f->local, m, status, s, e);
}

static int add_queue(struct checkpoint *c, struct file_seen *f, uint64_t id, struct scratch *s,
		     struct error *e)
{
	struct mqueue_entry *entry = vec_push(&c->ipc->queues);
	int r;

	if (!entry)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a message queue");
	*entry = (struct mqueue_entry){
		.id = id, .dev = f->st.st_dev, .ino = f->st.st_ino, .file = f->entry};
	r = save_queue(c, f, entry, s, e);
	if (r < 0)
		c->ipc->queues.n--;
	return r;
}

static int mqueue_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			     struct scratch *scratch, struct error *e)
{
	Reprise__MqueueFile *m =
		scratch_message(scratch, Reprise__MqueueFile, reprise__mqueue_file__init);
	bool new;
	int r;

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a message queue");
	if (f->flags & O_PATH)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "a message queue that was opened with O_PATH");
	msg->mqueue = m;
	r = objects_get(c->objects, RECORD_MQUEUE, f->st.st_dev, f->st.st_ino, &m->queue, &new);
	if (r < 0)
		return error_set(e, r, E_NO_MEMORY, "no memory for a message queue");
	m->name = scratch_string(scratch, f->link);
	return new ? add_queue(c, f, m->queue, scratch, e) : 0;
}

int mqueue_add(struct checkpoint *c, struct file_seen *f, const char *name, struct error *e)
{
	uint64_t id;
	bool new;

	f->link = scratch_string(&c->files->scratch, name);
	if (!f->link ||
	    objects_get(c->objects, RECORD_MQUEUE, f->st.st_dev, f->st.st_ino, &id, &new) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a message queue");
	return new ? add_queue(c, f, id, &c->files->scratch, e) : 0;
}

/* ---- who else has it ---- */

/* Calls fn for the queues that a process has open, if it is there and we may look. */
static int look_into(struct checkpoint *c, pid_t pid,
		     void (*fn)(struct mqueue_entry *entry, pid_t pid), struct error *e)
{
	_cleanup_(close_directory) DIR *dir = NULL;
	int fd = procfs_open(c->proc_fd, O_RDONLY | O_DIRECTORY | O_CLOEXEC, e, "%d/fd", pid);
	struct dirent *d;
	int ended = 0;

	if (fd == -EACCES || fd == -EPERM) {
		error_clear(e);
		return 0;
	}
	if (fd < 0)
		return procfs_unless_gone(fd, e);
	dir = fdopendir(fd);
	if (!dir) {
		close_fd(&fd);
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for descriptors");
	}
	while ((d = next_entry(dir, &ended))) {
		struct stat st;

		if (d->d_name[0] == '.')
			continue;
		if (fstatat(fd, d->d_name, &st, 0) < 0) {
			if (errno == ENOMEM || errno == EIO)
				ended = -errno;
			continue;
		}
		vec_for_each (entry, &c->ipc->queues)
			if (entry->dev == st.st_dev && entry->ino == st.st_ino)
				fn(entry, pid);
	}
	return ended == 0 || ended == -ENOENT || ended == -EACCES
		       ? 0
		       : error_errno(e, ended, E_IPC_STATE, "cannot read what process %d has open",
				     pid);
}

static void is_shared(struct mqueue_entry *entry, pid_t pid)
{
	entry->msg->shared = true;
}

static void is_notified(struct mqueue_entry *entry, pid_t pid)
{
	entry->notified_has_it |= entry->msg->notify && entry->msg->notify->pid == pid;
}

/* As far as we may look: a user sees the descriptors of his own processes. */
static int look_outside(struct checkpoint *c, struct error *e)
{
	_cleanup_(close_directory) DIR *dir = NULL;
	int fd = openat(c->proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0, ended = 0;
	struct dirent *d;

	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		r = -errno;
		close_fd(&fd);
		return error_errno(e, r, E_SYSTEM, "cannot open /proc");
	}
	while (r >= 0 && (d = next_entry(dir, &ended))) {
		pid_t pid = (pid_t)atoi(d->d_name);

		if (pid > 0 && pid != c->self && !in_tree(c, pid))
			r = look_into(c, pid, is_shared, e);
	}
	return r < 0 || ended >= 0 ? r : error_errno(e, ended, E_SYSTEM, "cannot read /proc");
}

static int name_entry(const struct mqueue_entry *entry, int r, struct error *e)
{
	return entry->file ? file_error_object(e, r, entry->file)
			   : error_object(e, r, "message queue /%s", entry->msg->name);
}

/* Nobody outside can come to a copy of what has no name, or is in a namespace that is made again.
 */
static int check_state(struct checkpoint *c, const struct mqueue_entry *entry, struct error *e)
{
	Reprise__MqueueNotify *notify = entry->msg->notify;
	const bool apart = entry->msg->namespace_ || c->own_ipc;
	int r = notify ? mqueue_notify_socket(c, notify, e) : 0;

	if (r < 0)
		return name_entry(entry, r, e);

	if (notify && !entry->notified_has_it) {
		error_set(e, -EOPNOTSUPP, E_IPC_STATE,
			  "process %d is notified of messages, but does not have the queue open",
			  notify->pid);
		return name_entry(entry, -EOPNOTSUPP, e);
	}
	if (!entry->msg->shared || (!entry->msg->unlinked && !apart))
		return 0;
	error_set(e, -EXDEV, E_FILE_OUTSIDE,
		  "the message queue is open in processes outside the tree, too, and %s",
		  apart ? "is in an IPC namespace of the tree" : "has no name any more");
	return name_entry(entry, -EXDEV, e);
}

static int mqueue_checkpoint_all(struct checkpoint *c, struct error *e)
{
	int r = mqueue_find_unopened(c, e);

	if (r < 0 || !c->ipc->queues.n)
		return r;
	vec_for_each (entry, &c->ipc->queues)
		c->ipc->used |= !entry->msg->namespace_;
	r = look_outside(c, e);
	vec_for_each (entry, &c->ipc->queues)
		if (r >= 0 && entry->msg->notify)
			r = look_into(c, entry->msg->notify->pid, is_notified, e);
	vec_for_each (entry, &c->ipc->queues)
		if (r >= 0)
			r = checkpoint_refuse(c, check_state(c, entry, e), e);
	vec_for_each (entry, &c->ipc->queues)
		if (r >= 0)
			r = checkpoint_put(c, RECORD_MQUEUE, entry->id, &entry->msg->base, e);
	return r;
}

static void mqueue_describe(const Reprise__File *msg, char *buf, size_t size)
{
	snprintf(buf, size, "%s", msg->mqueue ? msg->mqueue->name : "");
}

const struct file_ops mqueue_file_ops = {
	.kind = FILE_MQUEUE,
	.name = "message queue",
	.support = "POSIX queues, also unlinked: attributes, messages with their priorities and "
		   "notification (by root, kernel 6.1 or newer; refused otherwise)",
	.match = mqueue_match,
	.checkpoint = mqueue_checkpoint,
	.checkpoint_all = mqueue_checkpoint_all,
	.validate = mqueue_validate,
	.restart = mqueue_restart,
	.restart_table = mqueue_restart_table,
	.describe = mqueue_describe,
};
