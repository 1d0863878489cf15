/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pipes and fifos. The pipe itself is an object of its own, named by <device,
 * inode>; each open end is a description that refers to it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/file_private.h"
#include "fs/pipe_asker.h"
#include "fs/pipe_private.h"

static bool pipe_match(const struct file_seen *f)
{
	return S_ISFIFO(f->st.st_mode) && !strncmp(f->link, "pipe:", 5);
}

static bool fifo_match(const struct file_seen *f)
{
	return S_ISFIFO(f->st.st_mode) && f->link[0] == '/' && !(f->flags & O_PATH);
}

static bool reads(unsigned int flags)
{
	return (flags & O_ACCMODE) != O_WRONLY;
}

static bool writes(unsigned int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

/*
 * pipe_poll(): a write end says POLLERR when there is no reader, a read end
 * POLLHUP when there is no writer. (One that is open for both is its own other end.)
 */
static bool other_end_exists(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};

	return poll(&p, 1, 0) < 0 || !(p.revents & (POLLERR | POLLHUP));
}

/*
 * A fifo that was opened for reading without waiting has no hang-up until a writer has come and
 * gone (pipe_poll() compares w_counter with what it was at the open): then it has no end that is
 * seen by poll(), and is at its end all the same. With data in it, it cannot be told.
 */
static bool may_be_fresh(const struct file_seen *f)
{
	return f->link[0] == '/' && (f->flags & O_ACCMODE) == O_RDONLY &&
	       other_end_exists(f->local);
}

static int take_answer(struct checkpoint *c, struct error *e)
{
	struct files_checkpoint *fc = c->files;
	const struct pipe_asked *x = &fc->pipes_asked.v[fc->pipes_answered];
	bool fresh = false;
	int r = pipe_asker_answer(fc->pipe_asker, c->freezer.timeout_ms, &fresh, x->contents,
				  &fc->scratch, e);

	if (r < 0)
		return file_error_object(e, r, x->entry);
	fc->pipes_answered++;
	x->fresh->fresh = fresh;
	return 0;
}

int files_expect_pipes(struct checkpoint *c, struct error *e)
{
	struct files_checkpoint *fc = c->files;

	return fc->pipe_asker ? 0 : pipe_asker_begin(&fc->pipe_asker, c->proc_fd, e);
}

static int ask(struct checkpoint *c, const struct file_seen *f, Reprise__PipeFile *file,
	       Reprise__Pipe *contents, struct error *e)
{
	struct files_checkpoint *fc = c->files;
	const struct pipe_question q = {
		.contents = contents, .packets = f->flags & O_DIRECT, .fresh = may_be_fresh(f)};
	struct pipe_asked *x;
	int r;

	if (c->checking || (!q.contents && !q.fresh))
		return 0;
	x = vec_push(&fc->pipes_asked);
	if (!x)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pipe");
	*x = (struct pipe_asked){.entry = f->entry, .contents = contents, .fresh = file};
	r = files_expect_pipes(c, e);
	if (r < 0)
		return r;
	while ((r = pipe_asker_ask(fc->pipe_asker, f->local, q, e)) == -EAGAIN) {
		r = take_answer(c, e);
		if (r < 0)
			return r;
	}
	return r;
}

static int new_entry(struct checkpoint *c, const struct file_seen *f, uint64_t id,
		     struct pipe_entry **ret, struct error *e)
{
	struct scratch *s = &c->files->scratch;
	Reprise__Pipe *msg = scratch_message(s, Reprise__Pipe, reprise__pipe__init);
	struct pipe_entry *p = msg ? vec_push(&c->files->pipes) : NULL;

	if (!p)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pipe");
	*ret = p;
	p->id = id;
	p->msg = msg;
	p->fifo = f->link[0] == '/';
	p->other_end = other_end_exists(f->local);
	p->msg->uid = f->st.st_uid;
	p->msg->gid = f->st.st_gid;
	p->msg->mode = f->st.st_mode & 07777;
	return 0;
}

static int pipe_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			   struct scratch *scratch, struct error *e)
{
	struct pipe_entry *p = NULL;
	bool is_new;
	int r = 0;

	msg->pipe = scratch_message(scratch, Reprise__PipeFile, reprise__pipe_file__init);
	if (!msg->pipe || objects_get(c->objects, RECORD_PIPE, f->st.st_dev, f->st.st_ino,
				      &msg->pipe->pipe, &is_new) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a pipe");
	if (is_new)
		r = new_entry(c, f, msg->pipe->pipe, &p, e);
	else
		p = vec_find_id(&c->files->pipes, msg->pipe->pipe);
	if (r < 0 || !p)
		return r;
	if (p->fifo)
		r = inode_checkpoint(c, f->process, f->local, f->link, &msg->pipe->inode, e);
	msg->pipe->write_end = writes(f->flags);
	if (r >= 0)
		r = ask(c, f, msg->pipe, is_new ? p->msg : NULL, e);
	f->entry->private = p->id;
	if (reads(f->flags) && !p->read_end)
		p->read_end = f->entry;
	if (writes(f->flags) && !p->write_end)
		p->write_end = f->entry;
	return r;
}

/* Which end is in the tree, when the other is held outside? NULL: none is, or both are here. */
static bool leads_outside(const struct pipe_entry *p)
{
	return !p->fifo && p->other_end && (!p->read_end || !p->write_end);
}

static int check_outside(struct file_entry *f, const struct pipe_entry *p, struct error *e)
{
	bool input = reads(f->msg->flags);

	if (!f->msg->standard)
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "the %s end of this pipe is held by a process outside the tree",
				 input ? "write" : "read");
	if (input && p->msg->n_buffers)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "the pipe comes from outside the tree and holds data that has not "
				 "been read yet: it would be lost");
	f->msg->outside = true;
	return 0;
}

static int all_of(struct checkpoint *c, const struct file_ops *ops, struct error *e)
{
	vec_for_each (f, &c->files->files) {
		const struct pipe_entry *p = vec_find_id(&c->files->pipes, (*f)->private);
		int r;

		if ((*f)->ops != ops || !p || !leads_outside(p) || c->files->unseen)
			continue;
		r = check_outside(*f, p, e);
		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, *f), e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int pipe_checkpoint_all(struct checkpoint *c, struct error *e)
{
	int r = 0;

	while (c->files->pipes_answered < c->files->pipes_asked.n && r >= 0)
		r = take_answer(c, e);
	return r < 0 ? r : all_of(c, &pipe_file_ops, e);
}

static void pipe_checkpoint_end(struct checkpoint *c)
{
	pipe_asker_end(c->files->pipe_asker);
	vec_free(&c->files->pipes_asked);
}

/* ---- restart ---- */

static int pipe_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__Pipe *pipe;

	if (!msg->pipe)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a pipe end without its message");
	pipe = restart_find(r, RECORD_PIPE, msg->pipe->pipe);
	if (!pipe || pipe->capacity > 1ULL << 31)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "there is no proper pipe %llu",
				 (unsigned long long)msg->pipe->pipe);
	for (size_t i = 0; i < pipe->n_buffers; i++)
		if (pipe->buffers[i]->data.len > pipe->capacity || !pipe->buffers[i]->data.len)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID, "pipe %llu is overfull",
					 (unsigned long long)msg->pipe->pipe);
	if (msg->kind == FILE_FIFO)
		return inode_validate(r, msg->pipe->inode, e);
	return 0;
}

/* The pipe of a description, made when the first of its ends is needed. */
static int get_pipe(struct restart *r, const Reprise__File *msg, struct pipe_open **ret,
		    struct error *e)
{
	struct pipe_open *p = vec_find_id(&r->files->pipes, msg->pipe->pipe);
	int res;

	*ret = p;
	if (p->ends[0] >= 0)
		return 0;
	res = msg->kind == FILE_FIFO ? fifo_make(r, p, msg, e) : pipe_make(p, e);
	return res < 0 ? res : pipe_contents_fill(p, e);
}

/*
 * From now on the fifo has no writer: all that is to have seen one is open, and we keep it alive by
 * reading.
 */
static int leave_writing(struct restart *r, struct pipe_open *p, const Reprise__File *msg,
			 struct error *e)
{
	int reader, res = 0;

	vec_for_each (f, &r->files->files)
		if (f->msg->kind == FILE_FIFO && f->msg->pipe->pipe == p->id && f->fd < 0 &&
		    !f->msg->pipe->fresh && res >= 0)
			res = file_open_now(r, f, e);
	if (res >= 0)
		res = inode_open(r, msg->pipe->inode, O_RDONLY | O_NONBLOCK, &reader, e);
	if (res < 0)
		return res;
	close_pair(&p->ends);
	p->ends[0] = reader;
	return 0;
}

static int pipe_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			struct error *e)
{
	/* open() takes no O_DIRECT for them (do_dentry_open()); F_SETFL does, later. */
	int flags = (int)(msg->flags & (O_ACCMODE | O_NONBLOCK)) | O_CLOEXEC;
	struct pipe_open *p;
	int res, end = msg->pipe->write_end, fd;

	if (msg->outside)
		return file_outside_restart(r, msg, ret_fd, e);
	res = get_pipe(r, msg, &p, e);
	if (res < 0)
		return res;
	if (msg->kind == FILE_FIFO) {
		if (msg->pipe->fresh && p->ends[1] >= 0)
			res = leave_writing(r, p, msg, e);
		if (res < 0)
			return res;
		/* Both ends are held open, so that no open waits for the other. */
		return narrow_inode_open(r, msg->pipe->inode,
					 ((int)msg->flags & ~O_DIRECT) | O_NONBLOCK, ret_fd, e);
	}
	/* pipe2() never sets O_LARGEFILE, and open() always does. */
	if (!p->taken[end] && (flags & O_ACCMODE) != O_RDWR && !(msg->flags & KERNEL_O_LARGEFILE)) {
		p->taken[end] = true;
		fd = p->ends[end];
	} else {
		/* Another description of the same end, as open("/proc/self/fd/N") makes it. */
		fd = reopen_fd(r->proc_fd, p->ends[end], flags | O_NONBLOCK);
		res = fd < 0 ? fd : narrow_open(r, msg->flags, &fd, e);
	}
	if (fd < 0)
		return error_errno(e, fd, E_RESTORE, "cannot open the end of a pipe");
	if (res < 0)
		close_fd(&fd);
	else
		*ret_fd = fd;
	return res;
}

static void pipe_restart_end(struct restart *r)
{
	vec_for_each (p, &r->files->pipes) {
		for (int i = 0; i < 2; i++)
			if (!p->taken[i])
				close_fd(&p->ends[i]);
	}
}

static void pipe_describe(const Reprise__File *msg, char *buf, size_t size)
{
	snprintf(buf, size, "%s of pipe %llu%s%s",
		 (msg->flags & O_ACCMODE) == O_RDWR ? "both ends"
		 : msg->flags & O_WRONLY	    ? "write end"
						    : "read end",
		 msg->pipe ? (unsigned long long)msg->pipe->pipe : 0,
		 msg->flags & O_DIRECT ? ", packets" : "", msg->outside ? ", leads outside" : "");
}

const struct file_ops pipe_file_ops = {
	.kind = FILE_PIPE,
	.name = "pipe",
	.support = "contents, packets, capacity, one-ended; standard streams that lead outside are "
		   "replaced, others refused or external",
	.match = pipe_match,
	.checkpoint = pipe_checkpoint,
	.checkpoint_all = pipe_checkpoint_all,
	.checkpoint_end = pipe_checkpoint_end,
	.validate = pipe_validate,
	.restart = pipe_restart,
	.restart_end = pipe_restart_end,
	.describe = pipe_describe,
};

const struct file_ops fifo_file_ops = {
	.kind = FILE_FIFO,
	.name = "fifo",
	.support = "named and deleted, with contents, as long as nobody else uses the fifo at the "
		   "restart",
	.match = fifo_match,
	.checkpoint = pipe_checkpoint,
	.validate = pipe_validate,
	.restart = pipe_restart,
	.after_tasks = true, /* as late as can be: an original may be about to let go of it */
	.describe = pipe_describe,
};
