/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image/stream.h"

/* The kernel transfers no more than this at once (MAX_RW_COUNT), and a socket rather less. */
#define STREAM_CHUNK (1u << 30)

static int stream_open(struct stream *s, int fd, struct stat *st)
{
	off_t at;

	*s = (struct stream){.fd = fd};
	if (fstat(fd, st) < 0)
		return -errno;
	s->socket = S_ISSOCK(st->st_mode);
	if (!S_ISREG(st->st_mode))
		return 0;
	at = lseek(fd, 0, SEEK_CUR);
	if (at < 0)
		return -errno;
	s->positioned = true;
	s->base = at;
	if (st->st_size > at)
		s->size = st->st_size - at;
	return 0;
}

int stream_open_output(struct stream *s, int fd, struct error *e)
{
	struct stat st;
	int flags, r;

	r = stream_open(s, fd, &st);
	if (r < 0)
		return error_errno(e, r, E_OUTPUT, "the destination cannot be used");
	flags = fcntl(fd, F_GETFL);
	/* With O_APPEND, pwrite() appends whatever the offset (pwrite(2), BUGS). */
	if (flags >= 0 && (flags & O_APPEND))
		s->positioned = false;
	return 0;
}

int stream_open_input(struct stream *s, int fd, struct error *e)
{
	struct stat st;
	int r;

	r = stream_open(s, fd, &st);
	if (r < 0)
		return error_errno(e, r, E_IMAGE_OPEN, "the image cannot be read");
	if (S_ISDIR(st.st_mode))
		return error_set(e, -EISDIR, E_IMAGE_OPEN, "a directory is no image");
	return 0;
}

/* EINTR, or a descriptor that does not block. */
static int stream_wait(const struct stream *s, short events, struct error *e)
{
	struct pollfd p = {.fd = s->fd, .events = events};
	int r = errno == EINTR ? 0 : poll(&p, 1, 50);

	if (r < 0 && errno != EINTR)
		return -errno;
	return s->progress ? progress_report(s->progress, e) : 0;
}

/*
 * A write may raise SIGPIPE, or SIGXFSZ at RLIMIT_FSIZE, and either kills a
 * program that has not prepared for it. Both are sent to the writing thread
 * alone, so that one which is blocked meanwhile can be taken back.
 */
struct quiet {
	sigset_t old, pending;
};

static void quiet_begin(struct quiet *q, sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGPIPE);
	sigaddset(set, SIGXFSZ);
	sigpending(&q->pending);
	pthread_sigmask(SIG_BLOCK, set, &q->old);
}

static void quiet_end(const struct quiet *q, int err)
{
	const struct timespec now = {};
	int sig = err == -EPIPE ? SIGPIPE : err == -EFBIG ? SIGXFSZ : 0;
	sigset_t set;

	if (sig && !sigismember(&q->pending, sig)) {
		sigemptyset(&set);
		sigaddset(&set, sig);
		while (sigtimedwait(&set, NULL, &now) < 0 && errno == EINTR)
			;
	}
	pthread_sigmask(SIG_SETMASK, &q->old, NULL);
}

static ssize_t write_some(const struct stream *s, const void *buf, size_t len, uint64_t offset)
{
	if (len > STREAM_CHUNK)
		len = STREAM_CHUNK;
	if (s->positioned)
		return pwrite(s->fd, buf, len, s->base + offset);
	if (s->socket)
		return send(s->fd, buf, len, MSG_NOSIGNAL);
	return write(s->fd, buf, len);
}

static int write_all(const struct stream *s, const uint8_t *buf, size_t len, uint64_t offset,
		     struct error *e)
{
	ssize_t n;
	int r;

	while (len) {
		n = write_some(s, buf, len, offset);
		if (n > 0) {
			buf += n;
			len -= n;
			offset += n;
			continue;
		}
		if (n == 0)
			return -ENOSPC;
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
		r = s->positioned ? 0 : stream_wait(s, POLLOUT, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int stream_write(const struct stream *s, const void *buf, size_t len, uint64_t offset,
		 struct error *e)
{
	struct quiet q;
	sigset_t set;
	int r;

	quiet_begin(&q, &set);
	r = write_all(s, buf, len, offset, e);
	quiet_end(&q, r);
	if (r < 0)
		return error_errno(e, r, E_OUTPUT, "cannot write the image at offset %llu",
				   (unsigned long long)offset);
	return 0;
}

ssize_t stream_read(const struct stream *s, void *buf, size_t len, uint64_t offset, struct error *e)
{
	size_t got = 0;
	ssize_t n;
	int r;

	while (got < len) {
		size_t want = len - got < STREAM_CHUNK ? len - got : STREAM_CHUNK;

		if (s->positioned)
			n = pread(s->fd, (uint8_t *)buf + got, want, s->base + offset + got);
		else
			n = read(s->fd, (uint8_t *)buf + got, want);
		if (n == 0)
			break;
		if (n > 0) {
			got += n;
			continue;
		}
		r = -errno;
		if (r == -EINTR || r == -EAGAIN)
			r = s->positioned ? 0 : stream_wait(s, POLLIN, e);
		if (r < 0)
			return error_errno(e, r, E_SYSTEM, "cannot read the image at offset %llu",
					   (unsigned long long)(offset + got));
	}
	return got;
}

int stream_finish(const struct stream *s, uint64_t len, struct error *e)
{
	if (s->positioned && lseek(s->fd, s->base + len, SEEK_SET) < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot position the image file");
	return 0;
}
