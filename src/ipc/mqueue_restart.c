/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/context.h"
#include "ipc/mqueue.h"
#include "ipc/sysv.h"

#define MESSAGES_MAX 65536     /* HARD_MSGMAX */
#define MSGSIZE_MAX  (1 << 24) /* HARD_MSGSIZEMAX */
#define PRIORITIES   32768     /* MQ_PRIORITIES */

static int validate_queue(const Reprise__Mqueue *m, struct error *e)
{
	bool bad = !m->name[0] || strlen(m->name) > 255 || strchr(m->name, '/') ||
		   !strcmp(m->name, ".") || !strcmp(m->name, "..") || m->mode & ~07777u ||
		   !m->maxmsg || m->maxmsg > MESSAGES_MAX || !m->msgsize ||
		   m->msgsize > MSGSIZE_MAX || m->n_messages > m->maxmsg;

	for (size_t i = 0; i < m->n_messages && !bad; i++)
		bad = m->messages[i]->priority >= PRIORITIES ||
		      m->messages[i]->data.len > m->msgsize;
	if (!bad && m->notify)
		bad = mqueue_notify_validate(m->notify) < 0;
	return bad ? error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible message queue") : 0;
}

int mqueue_validate(const struct restart *r, const Reprise__File *file, struct error *e)
{
	const Reprise__Mqueue *m =
		file->mqueue ? restart_find(r, RECORD_MQUEUE, file->mqueue->queue) : NULL;

	return m ? 0 : error_set(e, -EBADMSG, E_IMAGE_INVALID, "a message queue is not there");
}

int mqueues_validate(const struct restart *r, struct error *e)
{
	const Reprise__Mqueue *m;
	int res = 0;

	for (size_t i = 0; res >= 0 && (m = restart_nth(r, RECORD_MQUEUE, i, NULL)); i++) {
		res = validate_queue(m, e);
		if (res >= 0 && (restart_space_missing(r, m->namespace_, CLONE_NEWIPC) ||
				 (m->namespace_ && m->shared)))
			res = error_set(e, -EBADMSG, E_IMAGE_INVALID,
					"a message queue of no IPC namespace");
	}
	return res;
}

/* Without O_CLOEXEC, which mq_open() would leave in the flags of the description. */
static int open_queue(const char *name, int flags, const struct mq_attr_kernel *attr)
{
	int fd = (int)syscall(SYS_mq_open, name, flags | O_NONBLOCK, 0600, attr);

	if (fd >= 0)
		ignore(fcntl(fd, F_SETFD, FD_CLOEXEC), "it is open");
	return fd < 0 ? -errno : fd;
}

/* What its user may have in queues (RLIMIT_MSGQUEUE) counts for us. */
static int create_queue(const char *name, const Reprise__Mqueue *m, struct error *e)
{
	const struct mq_attr_kernel attr = {.maxmsg = (long)m->maxmsg, .msgsize = (long)m->msgsize};
	struct rlimit now, more = {RLIM_INFINITY, RLIM_INFINITY};
	int fd;

	if (getrlimit(RLIMIT_MSGQUEUE, &now) < 0)
		return error_errno(e, -errno, E_SYSTEM, "RLIMIT_MSGQUEUE");
	if (setrlimit(RLIMIT_MSGQUEUE, &more) < 0) {
		more.rlim_cur = more.rlim_max = now.rlim_max;
		ignore(setrlimit(RLIMIT_MSGQUEUE, &more), "the limit that there is may do");
	}
	fd = open_queue(name, O_CREAT | O_EXCL | O_RDWR, &attr);
	ignore(setrlimit(RLIMIT_MSGQUEUE, &now), "it is lowered");
	if (fd == -EINVAL)
		return error_set(e, fd, E_IPC_STATE,
				 "a queue of %llu messages of %llu bytes is more than "
				 "/proc/sys/fs/mqueue/msg_max and msgsize_max allow",
				 (unsigned long long)m->maxmsg, (unsigned long long)m->msgsize);
	if (fd == -EMFILE)
		return error_set(e, fd, E_IPC_STATE,
				 "a queue of %llu messages of %llu bytes is more than "
				 "RLIMIT_MSGQUEUE allows",
				 (unsigned long long)m->maxmsg, (unsigned long long)m->msgsize);
	return fd;
}

static int fill_queue(const struct mqueue_open *q, struct error *e)
{
	const Reprise__Mqueue *m = q->msg;

	for (size_t i = 0; i < m->n_messages; i++)
		if (syscall(SYS_mq_timedsend, q->fd, m->messages[i]->data.data,
			    m->messages[i]->data.len, m->messages[i]->priority, NULL) < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot send message %zu to it",
					   i);
	if (fchown(q->fd, m->uid, m->gid) < 0)
		return error_errno(e, -errno, E_CREDENTIALS, "cannot set its owner");
	if (fchmod(q->fd, m->mode) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set its mode");
	return 0;
}

/* Under its old name if that is free, and without any at once. */
static int make_unlinked(struct mqueue_open *q, struct error *e)
{
	char name[64];
	const char *used = q->msg->name;

	q->fd = create_queue(used, q->msg, e);
	for (int i = 0; q->fd == -EEXIST && i < 100; i++) {
		snprintf(name, sizeof(name), "reprise-%d-%d", getpid(), i);
		used = name;
		q->fd = create_queue(used, q->msg, e);
	}
	if (q->fd < 0)
		return error_errno(e, q->fd, E_RESTORE, "cannot be made");
	if (syscall(SYS_mq_unlink, used) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot be removed again");
	return fill_queue(q, e);
}

static int make_named(struct mqueue_open *q, struct error *e)
{
	if (q->msg->shared)
		return error_set(
			e, -ENOENT, E_IPC_SHARED,
			"is not there any more, and processes outside the tree had it open, "
			"too");
	q->fd = create_queue(q->msg->name, q->msg, e);
	if (q->fd < 0)
		return error_errno(e, q->fd, E_RESTORE, "cannot be made");
	/* What is in a namespace of its own goes with it. */
	q->made = !q->msg->namespace_;
	return fill_queue(q, e);
}

static bool same_messages(const struct restart *r, const struct mqueue_open *q)
{
	_cleanup_(scratch_free) struct scratch s = {};
	Reprise__Mqueue now = REPRISE__MQUEUE__INIT;
	struct kernel_memory *k = NULL;
	struct error unused = {};
	bool same = kernel_memory_open(r->proc_fd, &k, &unused) >= 0 &&
		    mqueue_messages(k, q->fd, &now, &s, &unused) >= 0 &&
		    now.n_messages == q->msg->n_messages;

	for (size_t i = 0; i < now.n_messages && same; i++) {
		const Reprise__MqueueMessage *a = now.messages[i], *b = q->msg->messages[i];

		same = a->priority == b->priority && a->data.len == b->data.len &&
		       (!a->data.len || !memcmp(a->data.data, b->data.data, a->data.len));
	}
	kernel_memory_free(k);
	return same;
}

/* Its times are told in seconds: nothing but the messages themselves is good enough. */
static bool is_unchanged(const struct restart *r, const struct mqueue_open *q,
			 const struct stat *st, const struct mq_attr_kernel *attr)
{
	const Reprise__Mqueue *m = q->msg;

	if (m->maxmsg != (uint64_t)attr->maxmsg || m->msgsize != (uint64_t)attr->msgsize ||
	    m->uid != st->st_uid || m->gid != st->st_gid || m->mode != (st->st_mode & 07777))
		return false;
	if (m->shared)
		return m->ino == st->st_ino;
	if (m->n_messages != (size_t)attr->curmsgs)
		return false;
	return !m->n_messages || same_messages(r, q);
}

static int use_named(struct restart *r, struct mqueue_open *q, struct error *e)
{
	struct mq_attr_kernel attr;
	struct error warning = {};
	struct stat st;

	if (mqueue_attr(q->fd, &attr) < 0 || fstat(q->fd, &st) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot be looked at");
	if (is_unchanged(r, q, &st, &attr))
		return 0;
	if (!r->changed_files_allowed)
		return error_set(e, -ESTALE, E_IPC_CHANGED, "was changed after the checkpoint");
	error_set(&warning, -ESTALE, E_IPC_CHANGED,
		  "message queue /%s was changed after the checkpoint", q->msg->name);
	if (r->warn)
		r->warn(r->warn_arg, &warning);
	return 0;
}

static int get_queue(struct restart *r, struct mqueue_open *q, struct error *e)
{
	if (q->msg->unlinked)
		return make_unlinked(q, e);
	q->fd = open_queue(q->msg->name, O_RDWR, NULL);
	if (q->fd == -ENOENT)
		return make_named(q, e);
	if (q->fd < 0)
		return error_errno(e, q->fd, E_IPC_TAKEN, "is there, but cannot be opened");
	return use_named(r, q, e);
}

static int find_queue(struct restart *r, uint64_t id, struct mqueue_open **ret, struct error *e)
{
	struct mqueue_open *q;
	int res;

	vec_for_each (known, &r->ipc->queues)
		if (known->id == id) {
			*ret = known;
			return 0;
		}
	q = vec_push(&r->ipc->queues);
	if (!q)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a message queue");
	*q = (struct mqueue_open){
		.id = id, .msg = restart_find(r, RECORD_MQUEUE, id), .fd = -EBADF};
	res = get_queue(r, q, e);
	*ret = q;
	return res < 0 ? error_object(e, res, "message queue /%s", q->msg->name) : 0;
}

/*
 * A description as mq_open() makes it: only open() sets O_LARGEFILE, which F_GETFL shows. Of a
 * queue without a name it is the one that made it.
 */
static int open_as_queue(struct mqueue_open *q, int flags)
{
	_cleanup_(close_fd) int fd = -EBADF;
	struct stat is, there;

	if (q->msg->unlinked) {
		if (q->taken || (flags & O_ACCMODE) != O_RDWR)
			return -ENOENT;
		q->taken = true;
		return fcntl(q->fd, F_DUPFD_CLOEXEC, 3);
	}
	fd = open_queue(q->msg->name, flags & O_ACCMODE, NULL);
	if (fd < 0 || fstat(fd, &there) < 0 || fstat(q->fd, &is) < 0 || is.st_ino != there.st_ino)
		return -ENOENT;
	return take_fd(&fd);
}

struct opening {
	const Reprise__File *file;
	int *ret_fd;
};

/* In its namespace. */
static int open_here(struct restart *r, void *arg, struct error *e)
{
	const struct opening *o = arg;
	const Reprise__File *file = o->file;
	struct mqueue_open *q = NULL;
	int flags = (int)(file->flags & (O_ACCMODE | O_NONBLOCK));
	int fd = -ENOENT, res = find_queue(r, file->mqueue->queue, &q, e);

	if (res < 0)
		return res;
	if (!(file->flags & KERNEL_O_LARGEFILE))
		fd = open_as_queue(q, flags);
	if (fd < 0)
		fd = reopen_fd(r->proc_fd, q->fd, flags | O_CLOEXEC);
	if (fd < 0)
		return error_errno(e, fd, E_RESTORE, "cannot open a message queue anew");
	if (file->pos && lseek(fd, (off_t)file->pos, SEEK_SET) < 0) {
		close_fd(&fd);
		return error_errno(e, -errno, E_RESTORE, "cannot go to its position");
	}
	*o->ret_fd = fd;
	return 0;
}

int mqueue_restart(struct restart *r, uint64_t id, const Reprise__File *file, int *ret_fd,
		   struct error *e)
{
	const Reprise__Mqueue *m = restart_find(r, RECORD_MQUEUE, file->mqueue->queue);

	return ipc_restart_visit(r, m->namespace_, open_here, &(struct opening){file, ret_fd}, e);
}

static int make_unopened(struct restart *r, void *arg, struct error *e)
{
	const uint64_t *id = arg;
	struct mqueue_open *q;

	return find_queue(r, *id, &q, e);
}

int mqueues_restart(struct restart *r, struct error *e)
{
	const Reprise__Mqueue *m;
	uint64_t id;
	int res = 0;

	for (size_t i = 0; res >= 0 && (m = restart_nth(r, RECORD_MQUEUE, i, &id)); i++)
		res = ipc_restart_visit(r, m->namespace_, make_unopened, &id, e);
	return res;
}

void mqueue_release(struct restart *r)
{
	vec_for_each (q, &r->ipc->queues) {
		if (q->made)
			syscall(SYS_mq_unlink, q->msg->name);
		close_fd(&q->fd);
	}
	vec_free(&r->ipc->queues);
}
