/* SPDX-License-Identifier: Apache-2.0 */
/* What is in a pipe: copied with tee(2), which consumes nothing, and written into a new one. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/pipe_private.h"

static void close_pair(int (*fds)[2])
{
	close_fd(&(*fds)[0]);
	close_fd(&(*fds)[1]);
}

/* tee(2) fills slots one by one: the copy must have as many as the original. */
static int copy_pipe(int source, uint64_t capacity, int copy[2], struct error *e)
{
	int held = 0, copied = 0;

	if (pipe2(copy, O_CLOEXEC | O_NONBLOCK) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot make a pipe");
	if (fcntl(copy[1], F_SETPIPE_SZ, (int)capacity) < 0)
		return error_errno(e, -errno, E_FILE_STATE,
				   "its capacity of %llu bytes is more than this user may have "
				   "(/proc/sys/fs/pipe-max-size)",
				   (unsigned long long)capacity);
	if (tee(source, copy[1], INT32_MAX, SPLICE_F_NONBLOCK) < 0 && errno != EAGAIN)
		return error_errno(e, -errno, E_SYSTEM, "cannot copy the contents (tee)");
	if (ioctl(source, FIONREAD, &held) < 0 || ioctl(copy[0], FIONREAD, &copied) < 0)
		return error_errno(e, -errno, E_SYSTEM, "FIONREAD");
	if (held != copied)
		return error_set(e, -EIO, E_FILE_STATE, "only %d of its %d bytes could be copied",
				 copied, held);
	return copied;
}

/*
 * A read ends behind a packet (pipe_read()), so that pieces that do not fill
 * the buffer and are not the last are packets.
 */
static int read_copy(int fd, size_t total, struct pipe_entry *p, struct scratch *s, struct error *e)
{
	VEC(Reprise__PipeBuffer *) list = {};
	_cleanup_(free_ptr) char *buf = malloc(total);
	size_t done = 0;
	int r = 0;

	while (buf && done < total) {
		ssize_t n = read(fd, buf + done, total - done);
		Reprise__PipeBuffer *b, **slot;

		if (n <= 0) {
			r = error_errno(e, n ? -errno : -EIO, E_SYSTEM, "cannot read a copy of it");
			break;
		}
		b = scratch_message(s, Reprise__PipeBuffer, reprise__pipe_buffer__init);
		slot = vec_push(&list);
		if (!b || !slot)
			break;
		*slot = b;
		b->data.len = (size_t)n;
		b->data.data = scratch_copy(s, buf + done, (size_t)n);
		if (!b->data.data)
			break;
		done += (size_t)n;
		if (done < total)
			p->packets = true;
	}
	if (r >= 0 && done == total)
		p->msg->buffers = scratch_copy(s, list.v, list.n * sizeof(*list.v));
	if (r >= 0 && !p->msg->buffers)
		r = error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the contents of a pipe");
	if (r >= 0)
		p->msg->n_buffers = list.n;
	vec_free(&list);
	return r;
}

int pipe_contents_save(struct checkpoint *c, const struct file_seen *f, struct pipe_entry *p,
		       struct error *e)
{
	_cleanup_(close_fd) int reader = -EBADF;
	_cleanup_(close_pair) int copy[2] = {-EBADF, -EBADF};
	int held = 0, n;

	if (ioctl(f->local, FIONREAD, &held) < 0)
		return error_errno(e, -errno, E_SYSTEM, "FIONREAD");
	if (!held)
		return 0;
	/* Opening a pipe through /proc gives the end that the flags say, whichever end it was. */
	reader = reopen_fd(c->proc_fd, f->local, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (reader < 0)
		return error_errno(e, reader, E_FILE_STATE, "cannot open its read end");
	n = copy_pipe(reader, p->msg->capacity, copy, e);
	if (n <= 0)
		return n;
	return read_copy(copy[0], (size_t)n, p, &c->files->scratch, e);
}

/* ---- restart ---- */

static int set_owner(const struct pipe_open *p, struct error *e)
{
	const Reprise__Pipe *msg = p->msg;
	struct stat st;

	if (fstat(p->ends[0], &st) < 0)
		return error_errno(e, -errno, E_SYSTEM, "fstat of a pipe");
	if ((st.st_uid != msg->uid || st.st_gid != msg->gid) &&
	    fchown(p->ends[0], msg->uid, msg->gid) < 0)
		return error_errno(e, -errno, E_CREDENTIALS,
				   "cannot give a pipe to user %u, group %u", msg->uid, msg->gid);
	if ((st.st_mode & 07777) != msg->mode && fchmod(p->ends[0], msg->mode & 07777) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set the mode of a pipe");
	return 0;
}

static int set_capacity(const struct pipe_open *p, struct error *e)
{
	if (p->msg->capacity && (uint64_t)fcntl(p->ends[1], F_GETPIPE_SZ) != p->msg->capacity &&
	    fcntl(p->ends[1], F_SETPIPE_SZ, (int)p->msg->capacity) < 0)
		return error_errno(e, -errno, E_CREDENTIALS,
				   "cannot give a pipe its capacity of %llu bytes",
				   (unsigned long long)p->msg->capacity);
	return 0;
}

int pipe_make(struct pipe_open *p, struct error *e)
{
	int r;

	if (pipe2(p->ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make a pipe");
	r = set_owner(p, e);
	return r < 0 ? r : set_capacity(p, e);
}

int fifo_make(struct restart *r, struct pipe_open *p, const Reprise__File *msg, struct error *e)
{
	int held = 0, res;

	/* For reading and writing: Linux opens a fifo like that without waiting. */
	res = inode_open(r, msg->pipe->inode, O_RDWR | O_NONBLOCK, &p->ends[0], e);
	if (res >= 0)
		res = inode_open(r, msg->pipe->inode, O_RDWR | O_NONBLOCK, &p->ends[1], e);
	if (res < 0)
		return res;
	if (p->msg->n_buffers && (ioctl(p->ends[0], FIONREAD, &held) < 0 || held))
		return error_set(e, -EBUSY, E_RESTORE,
				 "the fifo is in use: it holds %d bytes of others", held);
	return set_capacity(p, e);
}

int pipe_contents_fill(struct pipe_open *p, struct error *e)
{
	int flags = fcntl(p->ends[1], F_GETFL);

	for (size_t i = 0; i < p->msg->n_buffers; i++) {
		const Reprise__PipeBuffer *b = p->msg->buffers[i];
		ssize_t n;

		if (fcntl(p->ends[1], F_SETFL, b->packet ? flags | O_DIRECT : flags & ~O_DIRECT) <
		    0)
			return error_errno(e, -errno, E_RESTORE, "F_SETFL of a pipe");
		n = write(p->ends[1], b->data.data, b->data.len);
		if (n != (ssize_t)b->data.len)
			return error_errno(e, n < 0 ? -errno : -EIO, E_RESTORE,
					   "cannot put %zu bytes into a pipe", b->data.len);
	}
	if (fcntl(p->ends[1], F_SETFL, flags) < 0)
		return error_errno(e, -errno, E_RESTORE, "F_SETFL of a pipe");
	return 0;
}
