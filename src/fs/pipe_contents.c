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

void close_pair(int (*fds)[2])
{
	close_fd(&(*fds)[0]);
	close_fd(&(*fds)[1]);
}

/*
 * tee(2) fills slots one by one: the copy must have as many as the original, and
 * one more for a mark behind them if that can be had.
 */
static int copy_pipe(int source, uint64_t capacity, int copy[2], struct error *e)
{
	int held = 0, copied = 0;

	if (pipe2(copy, O_CLOEXEC | O_NONBLOCK) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot make a pipe");
	if (fcntl(copy[1], F_SETPIPE_SZ, (int)capacity * 2) < 0 &&
	    fcntl(copy[1], F_SETPIPE_SZ, (int)capacity) < 0)
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

/* The contents, and where reads of a copy end: behind each packet, and nowhere else (pipe_read()).
 */
struct contents {
	uint8_t *data;
	size_t size;
	VEC(size_t) ends;
	bool last_is_packet;
};

static void free_contents(struct contents *x)
{
	free(x->data);
	vec_free(&x->ends);
}

static int add_end(struct contents *x, size_t end, struct error *e)
{
	size_t *slot = vec_push(&x->ends);

	if (!slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the contents of a pipe");
	*slot = end;
	return 0;
}

/* A mark that is no packet is read together with what precedes it, unless that is one. */
static int read_contents(const int copy[2], struct contents *x, bool *ret_marked, struct error *e)
{
	bool marked = write(copy[1], "", 1) == 1;
	size_t total = x->size + marked, done = 0;
	int r = 0;

	x->data = malloc(total);
	if (!x->data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the contents of a pipe");
	while (done < total && r >= 0) {
		ssize_t n = read(copy[0], x->data + done, total - done);

		if (n <= 0)
			return error_errno(e, n ? -errno : -EIO, E_SYSTEM,
					   "cannot read a copy of it");
		done += (size_t)n;
		if (done <= x->size)
			r = add_end(x, done, e);
		else if (n == 1)
			x->last_is_packet = true;
		else
			r = add_end(x, x->size, e);
	}
	*ret_marked = marked;
	return r;
}

/*
 * How many bytes stand before the packet at the end of the next `len`: reading a byte
 * takes one of those, or the whole packet.
 */
static ssize_t bytes_before_packet(int fd, size_t len)
{
	for (size_t before = 0; before < len; before++) {
		int held, left;
		char byte;

		if (ioctl(fd, FIONREAD, &held) < 0 || read(fd, &byte, 1) != 1 ||
		    ioctl(fd, FIONREAD, &left) < 0)
			return -EIO;
		if ((size_t)(held - left) == len - before)
			return (ssize_t)before;
		if (held - left != 1)
			return -EIO;
	}
	return -EIO;
}

static int add_buffer(Reprise__Pipe *msg, const uint8_t *data, size_t len, bool packet,
		      struct scratch *s, struct error *e)
{
	Reprise__PipeBuffer *b =
		scratch_message(s, Reprise__PipeBuffer, reprise__pipe_buffer__init);

	if (b)
		b->data.data = scratch_copy(s, data, len);
	if (!b || !b->data.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the contents of a pipe");
	b->data.len = len;
	b->packet = packet;
	msg->buffers[msg->n_buffers++] = b;
	return 0;
}

/* `again` is another copy, from which the packets are read once more. */
static int add_buffers(Reprise__Pipe *msg, const struct contents *x, int again, struct scratch *s,
		       struct error *e)
{
	size_t start = 0;
	int r = 0;

	msg->buffers = scratch_alloc(s, 2 * x->ends.n * sizeof(*msg->buffers));
	if (!msg->buffers)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the contents of a pipe");
	for (size_t i = 0; i < x->ends.n && r >= 0; start = x->ends.v[i++]) {
		bool packet = i + 1 < x->ends.n || x->last_is_packet;
		size_t len = x->ends.v[i] - start;
		ssize_t before = packet ? bytes_before_packet(again, len) : 0;

		if (before < 0)
			return error_set(e, (int)before, E_SYSTEM, "cannot tell its packets apart");
		if (before)
			r = add_buffer(msg, x->data + start, (size_t)before, false, s, e);
		if (r >= 0)
			r = add_buffer(msg, x->data + start + before, len - (size_t)before, packet,
				       s, e);
	}
	return r;
}

int pipe_contents_save(int proc_fd, int fd, bool packets, Reprise__Pipe *msg, struct scratch *s,
		       struct error *e)
{
	_cleanup_(close_fd) int reader = -EBADF;
	_cleanup_(close_pair) int copy[2] = {-EBADF, -EBADF};
	_cleanup_(close_pair) int again[2] = {-EBADF, -EBADF};
	_cleanup_(free_contents) struct contents x = {};
	bool marked = false;
	int held = 0, r;

	if (ioctl(fd, FIONREAD, &held) < 0)
		return error_errno(e, -errno, E_SYSTEM, "FIONREAD");
	if (!held)
		return 0;
	/* Opening a pipe through /proc gives the end that the flags say, whichever end it was. */
	reader = reopen_fd(proc_fd, fd, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (reader < 0)
		return error_errno(e, reader, E_FILE_STATE, "cannot open its read end");
	r = copy_pipe(reader, msg->capacity, copy, e);
	if (r <= 0)
		return r;
	x.size = (size_t)r;
	r = read_contents(copy, &x, &marked, e);
	if (r < 0)
		return r;
	if (!marked)
		x.last_is_packet = x.ends.n > 1 || packets;
	if (x.ends.n > 1 || x.last_is_packet)
		r = copy_pipe(reader, msg->capacity, again, e);
	return r < 0 ? r : add_buffers(msg, &x, again[0], s, e);
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

/* For reading and writing: Linux opens a fifo like that without waiting. */
static int open_fifo(struct restart *r, struct pipe_open *p, uint64_t inode, struct error *e)
{
	int res = inode_open(r, inode, O_RDWR | O_NONBLOCK, &p->ends[0], e);

	return res < 0 ? res : inode_open(r, inode, O_RDWR | O_NONBLOCK, &p->ends[1], e);
}

int fifo_make(struct restart *r, struct pipe_open *p, const Reprise__File *msg, struct error *e)
{
	int held = 0, res = open_fifo(r, p, msg->pipe->inode, e);

	/* What is in it lives as long as somebody has it open, and so do we. */
	while (res >= 0 && p->msg->n_buffers && ioctl(p->ends[0], FIONREAD, &held) == 0 && held) {
		close_pair(&p->ends);
		if (!files_restart_patience(r))
			return error_set(e, -EBUSY, E_RESTORE,
					 "the fifo is in use: it holds %d bytes of others", held);
		res = open_fifo(r, p, msg->pipe->inode, e);
	}
	return res < 0 ? res : set_capacity(p, e);
}

static int put_all(int fd, const Reprise__PipeBuffer *b, struct error *e)
{
	ssize_t n = write(fd, b->data.data, b->data.len);

	if (n != (ssize_t)b->data.len)
		return error_errno(e, n < 0 ? -errno : -EIO, E_RESTORE,
				   "cannot put %zu bytes into a pipe", b->data.len);
	return 0;
}

/* Where a packet follows, which would be added to what a write leaves in a page (pipe_write()). */
static int put_apart(int fd, const Reprise__PipeBuffer *b, struct error *e)
{
	_cleanup_(close_pair) int other[2] = {-EBADF, -EBADF};
	int r;

	if (pipe2(other, O_CLOEXEC | O_NONBLOCK) < 0 ||
	    fcntl(other[1], F_SETPIPE_SZ, fcntl(fd, F_GETPIPE_SZ)) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make a pipe");
	r = put_all(other[1], b, e);
	if (r >= 0 && tee(other[0], fd, b->data.len, SPLICE_F_NONBLOCK) != (ssize_t)b->data.len)
		r = error_errno(e, -errno, E_RESTORE, "cannot put %zu bytes into a pipe",
				b->data.len);
	return r;
}

int pipe_contents_fill(struct pipe_open *p, struct error *e)
{
	int flags = fcntl(p->ends[1], F_GETFL), r = 0;

	for (size_t i = 0; i < p->msg->n_buffers && r >= 0; i++) {
		const Reprise__PipeBuffer *b = p->msg->buffers[i];

		if (fcntl(p->ends[1], F_SETFL, b->packet ? flags | O_DIRECT : flags & ~O_DIRECT) <
		    0)
			return error_errno(e, -errno, E_RESTORE, "F_SETFL of a pipe");
		if (!b->packet && i + 1 < p->msg->n_buffers && p->msg->buffers[i + 1]->packet)
			r = put_apart(p->ends[1], b, e);
		else
			r = put_all(p->ends[1], b, e);
	}
	if (r >= 0 && fcntl(p->ends[1], F_SETFL, flags) < 0)
		r = error_errno(e, -errno, E_RESTORE, "F_SETFL of a pipe");
	return r;
}
