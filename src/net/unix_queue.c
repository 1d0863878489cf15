/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits in the queue of a Unix socket, at the checkpoint. The first piece can simply be peeked
 * at; to see those behind it SO_PEEK_OFF has to be set, on the socket of the application, and some
 * more options for the moment: they tell what the kernel adds to a message that is received, and
 * the tasks are stopped. The restart side is in unix_fill.c.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "fs/context.h"
#include "net/socket.h"
#include "net/unix.h"

#define MESSAGE_MAX (1u << 20)

struct reader {
	struct checkpoint *c;
	const struct file_entry *entry;
	int fd;
	Reprise__UnixSocket *m;
	struct scratch *s;
	VEC(Reprise__SocketData *) list;
	char *buf;
	size_t size;
	bool stream;
	int at;		  /* where the next piece begins: SO_PEEK_OFF */
	uint64_t carried; /* descriptors that have been seen */
	size_t pieces;	  /* as the kernel hands them out */
};

/* One look. */
struct peeked {
	ssize_t n;
	int flags;
	struct sockaddr_un from;
	size_t from_len;
	bool message; /* there is one, maybe without bytes */
	struct ucred cred;
	int fds[UNIX_FDS_MAX];
	size_t nfds;
};

static void peeked_drop(struct peeked *p)
{
	for (size_t i = 0; i < p->nfds; i++)
		close_fd(&p->fds[i]);
	p->nfds = 0;
}

static void take_control(struct msghdr *msg, struct peeked *p)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		int pidfd;

		if (c->cmsg_level != SOL_SOCKET)
			continue;
		switch (c->cmsg_type) {
		case SCM_CREDENTIALS:
			memcpy(&p->cred, CMSG_DATA(c), sizeof(p->cred));
			p->message = true;
			break;
		case SCM_RIGHTS:
			p->nfds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(p->fds, CMSG_DATA(c), p->nfds * sizeof(int));
			break;
		case SCM_PIDFD: /* of the sender, made for us */
			memcpy(&pidfd, CMSG_DATA(c), sizeof(pidfd));
			close_fd(&pidfd);
			break;
		default:
			break;
		}
	}
}

static void peek_into(const struct reader *rd, struct iovec *iov, size_t n, struct peeked *p)
{
	/* Room for the descriptors and for all else that a socket may be told to add. */
	char control[CMSG_SPACE(UNIX_FDS_MAX * sizeof(int)) + 1024] __attribute__((aligned(8)));
	struct msghdr msg = {.msg_name = &p->from,
			     .msg_namelen = sizeof(p->from),
			     .msg_iov = iov,
			     .msg_iovlen = n,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};

	memset(p, 0, sizeof(*p));
	p->n = recvmsg(rd->fd, &msg, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (p->n < 0) {
		p->n = -errno;
		return;
	}
	p->flags = msg.msg_flags;
	if (msg.msg_namelen > offsetof(struct sockaddr_un, sun_path))
		p->from_len = msg.msg_namelen - offsetof(struct sockaddr_un, sun_path);
	take_control(&msg, p);
	p->message |= p->n > 0;
}

static void peek(const struct reader *rd, size_t size, struct peeked *p)
{
	struct iovec iov = {.iov_base = rd->buf, .iov_len = size};

	peek_into(rd, &iov, 1, p);
}

static int set_option(int fd, int name, int value, struct error *e)
{
	if (setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value)) < 0)
		return error_errno(e, -errno, E_SYSTEM, "option %d of a Unix socket", name);
	return 0;
}

static int add_files(struct reader *rd, struct peeked *p, Reprise__SocketData *d, struct error *e)
{
	int r = 0;

	if (!p->nfds)
		return 0;
	d->files = scratch_alloc(rd->s, p->nfds * sizeof(*d->files));
	if (!d->files)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for queued data");
	for (size_t i = 0; i < p->nfds && r >= 0; i++)
		r = file_in_flight(rd->c, rd->entry, take_fd(&p->fds[i]), &d->files[d->n_files++],
				   e);
	rd->carried += d->n_files;
	return r;
}

/* A message that was sent when neither side wanted credentials has none (maybe_add_creds()); the
 * kernel shows nobody then. */
static bool has_credentials(const struct ucred *cred)
{
	const unsigned int nobody = 65534;

	return cred->pid || cred->uid != nobody || cred->gid != nobody;
}

static int add(struct reader *rd, struct peeked *p, struct error *e)
{
	Reprise__SocketData *d =
		scratch_message(rd->s, Reprise__SocketData, reprise__socket_data__init);
	Reprise__SocketData **slot = vec_push(&rd->list);

	if (!d || !slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for queued data");
	*slot = d;
	d->data.len = (size_t)p->n;
	d->data.data = scratch_copy(rd->s, rd->buf, d->data.len);
	d->sender.len = p->from_len;
	d->sender.data = scratch_copy(rd->s, p->from.sun_path, p->from_len);
	if (has_credentials(&p->cred)) {
		d->credentials = true;
		d->pid = p->cred.pid;
		d->uid = p->cred.uid;
		d->gid = p->cred.gid;
	}
	rd->at += (int)p->n;
	if ((d->data.len && !d->data.data) || (d->sender.len && !d->sender.data))
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for queued data");
	return add_files(rd, p, d, e);
}

/*
 * Where in a look of n bytes do the descriptors begin? The kernel glues what was sent before to the
 * piece that carries them, which is the last of the look (unix_stream_read_generic()). A
 * buffer whose last byte is not there fails within that piece, and returns what precedes it.
 */
static int find_start(const struct reader *rd, size_t n, size_t *ret, struct error *e)
{
	struct iovec iov[2] = {{.iov_base = rd->buf, .iov_len = n - 1},
			       {.iov_base = NULL, .iov_len = 1}};
	struct peeked p;
	int r = set_option(rd->fd, SO_PEEK_OFF, rd->at, e);

	if (r < 0)
		return r;
	peek_into(rd, iov, 2, &p);
	peeked_drop(&p);
	if (p.n < 0 && p.n != -EFAULT)
		return error_errno(e, (int)p.n, E_FILE_STATE, "cannot look into its queue");
	*ret = p.n > 0 ? (size_t)p.n : 0;
	return set_option(rd->fd, SO_PEEK_OFF, rd->at, e);
}

/* The pieces of a stream that one look has found. */
static int add_stream(struct reader *rd, struct peeked *p, struct error *e)
{
	size_t before = 0;
	int r;

	if (!p->nfds)
		return add(rd, p, e);
	r = find_start(rd, (size_t)p->n, &before, e);
	if (r < 0)
		return r;
	if (before) {
		/* It tells of descriptors that are behind it, too. */
		peeked_drop(p);
		peek(rd, before, p);
		peeked_drop(p);
		if (p->n != (ssize_t)before)
			return error_set(e, -EIO, E_FILE_STATE, "its queue changes");
		return add(rd, p, e);
	}
	r = set_option(rd->fd, SO_PEEK_OFF, rd->at + (int)p->n, e);
	return r < 0 ? r : add(rd, p, e);
}

/* 1 when there is no more. */
static int peek_one(struct reader *rd, struct error *e)
{
	struct peeked p;
	int r;

	peek(rd, rd->size, &p);
	if (p.n == -EAGAIN || p.n == -ECONNRESET || p.n == -EINVAL || p.n == -ENOTCONN)
		return 1;
	if (p.n < 0)
		return error_errno(e, (int)p.n, E_FILE_STATE, "cannot look into its queue");
	if (!p.message || (rd->stream && !p.n)) /* the end of what a closed end has sent */
		r = 1;
	else if (p.flags & MSG_CTRUNC)
		r = error_set(e, -EMFILE, E_FILE_STATE,
			      "descriptors wait in its queue, and reprise can open no more (ulimit "
			      "-Hn)");
	else if (p.flags & MSG_TRUNC)
		r = error_set(e, -EMSGSIZE, E_FILE_STATE, "a message in its queue is too long");
	else
		r = rd->stream ? add_stream(rd, &p, e) : add(rd, &p, e);
	peeked_drop(&p);
	rd->pieces++;
	return r;
}

/*
 * A message without bytes that has been peeked at before is passed over when SO_PEEK_OFF is set
 * (__skb_try_recv_from_queue()): the first of the queue is seen without.
 */
static int peek_first(struct reader *rd, struct error *e)
{
	struct peeked p;
	int r = 0;

	if (rd->stream)
		return 0;
	peek(rd, rd->size, &p);
	if (p.n == 0 && p.message)
		r = add(rd, &p, e);
	peeked_drop(&p);
	return r;
}

static int peek_all(struct reader *rd, struct error *e)
{
	int r = peek_first(rd, e);

	if (r >= 0)
		r = set_option(rd->fd, SO_PEEK_OFF, 0, e);
	while (r == 0)
		r = peek_one(rd, e);
	return r < 0 ? r : 0;
}

/* Those without bytes that an earlier look has seen, behind others: the kernel's memory has them.
 */
static int add_unseen(struct reader *rd, struct error *e)
{
	int64_t count = rd->stream ? -1 : unix_kernel_count(rd->c, rd->fd);
	Reprise__SocketData **all;
	int r;

	if (count < 0 || (size_t)count == rd->list.n)
		return 0;
	all = scratch_alloc(rd->s, (size_t)count * sizeof(*all) + 1);
	if (!all)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for queued data");
	r = unix_kernel_fill(rd->c, rd->fd, rd->list.v, rd->list.n, (size_t)count, all, rd->s);
	if (r < 0)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "only %zu of %lld messages in its queue are seen: others have no "
				 "bytes and were looked at before; try again",
				 rd->list.n, (long long)count);
	while (rd->list.n < (size_t)count)
		if (!vec_push(&rd->list))
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for queued data");
	memcpy(rd->list.v, all, (size_t)count * sizeof(*all));
	return 0;
}

static int check_all(const struct reader *rd, int queued, uint64_t carried, struct error *e)
{
	size_t sum = 0;

	vec_for_each (d, &rd->list)
		sum += (*d)->data.len;
	if (rd->stream && sum != (size_t)queued)
		return error_set(e, -EIO, E_FILE_STATE,
				 "only %zu of %d bytes in its queue are seen", sum, queued);
	if (rd->carried != carried)
		return error_set(e, -EIO, E_FILE_STATE,
				 "only %llu of %llu descriptors in its queue are seen",
				 (unsigned long long)rd->carried, (unsigned long long)carried);
	return 0;
}

/* ---- the byte out of band ---- */

/*
 * A look ends at the mark, if it began before it, and behind descriptors. (At the beginning of the
 * queue SIOCATMARK tells.) -1: there is none.
 */
static int find_mark(struct reader *rd, int queued, int *ret, struct error *e)
{
	int at_mark = 0, at = 0, r;
	struct peeked p;

	/* Kernels without MSG_OOB do not know. */
	if (ioctl(rd->fd, SIOCATMARK, &at_mark) < 0 && socket_unsure(errno))
		return error_errno(e, -errno, E_FILE_STATE, "cannot look for a byte out of band");
	if (at_mark)
		*ret = 0;
	if (at_mark || rd->pieces < 2) /* one look has seen all */
		return 0;
	r = set_option(rd->fd, SO_PEEK_OFF, 0, e);
	while (r >= 0 && at < queued && *ret < 0) {
		bool carries;

		peek(rd, rd->size, &p);
		carries = p.nfds;
		peeked_drop(&p);
		if (p.n <= 0)
			break;
		at += (int)p.n;
		if (!carries && at < queued)
			*ret = at;
	}
	return r;
}

static int save_mark(struct reader *rd, int queued, struct error *e)
{
	int mark = -1, r;
	bool pending;
	char byte;

	/* Inline, it is a byte like the others, though it ends a look no less. */
	r = set_option(rd->fd, SO_OOBINLINE, 0, e);
	if (r >= 0)
		r = set_option(rd->fd, SO_PASSCRED, 0, e);
	if (r >= 0)
		r = find_mark(rd, queued, &mark, e);
	if (r < 0)
		return r;
	pending = recv(rd->fd, &byte, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT) == 1;
	if (pending && mark < 0)
		return error_set(e, -EIO, E_FILE_STATE,
				 "a byte out of band is in its queue, and its place cannot be "
				 "found; try again");
	rd->m->mark = mark >= 0;
	rd->m->mark_at = mark >= 0 ? (uint64_t)mark : 0;
	rd->m->mark_read = mark >= 0 && !pending;
	return 0;
}

/* ---- all of it ---- */

/* What is set for the moment, and what it was. */
static const struct toggle {
	int name, value;
	bool stream; /* for streams only */
} toggles[] = {
	{SO_PEEK_OFF, -1, false},
	{SO_PASSCRED, 1, false}, /* also tells a message without bytes from the end */
	{SO_PASSRIGHTS, 1, false},
	{SO_OOBINLINE, 1, true},
};
#define NTOGGLES (sizeof(toggles) / sizeof(toggles[0]))

/*
 * Who kills us now shall not leave the options as they are set: the task that has the socket would
 * set them back. Not so for a socket that waits in the queue of another, or in a thread with
 * seccomp filters.
 */
static int promise(const struct reader *rd, const int was[NTOGGLES], struct error *e)
{
	struct agent_promise calls[NTOGGLES];

	for (size_t i = 0; i < NTOGGLES; i++)
		calls[i] = (struct agent_promise){
			.nr = SYS_setsockopt,
			.args = {(uint64_t)rd->entry->fd, SOL_SOCKET, (uint64_t)toggles[i].name, 0,
				 sizeof(int)},
			.value_arg = 3,
			.value = was[i],
		};
	return file_promise(rd->c, rd->entry, calls, rd->stream ? NTOGGLES : NTOGGLES - 1, e);
}

static int look_all(const struct reader *rd, int was[NTOGGLES], struct error *e)
{
	for (size_t i = 0; i < NTOGGLES; i++) {
		int is = socket_number(rd->fd, SOL_SOCKET, toggles[i].name, &was[i], e);

		if (is < 0)
			return is;
		if (!is || (toggles[i].stream && !rd->stream))
			was[i] = toggles[i].value;
	}
	return 0;
}

static int toggle_all(const struct reader *rd, const int was[NTOGGLES], struct error *e)
{
	int r = promise(rd, was, e);

	for (size_t i = 0; i < NTOGGLES && r >= 0; i++)
		if (was[i] != toggles[i].value)
			r = set_option(rd->fd, toggles[i].name, toggles[i].value, e);
	return r;
}

/* All of them, whatever fails. */
static int toggle_back(const struct reader *rd, const int was[NTOGGLES], struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < NTOGGLES; i++) {
		int is, known = socket_number(rd->fd, SOL_SOCKET, toggles[i].name, &is, e);
		int set = 0;

		if (known < 0 || (known && is != was[i]))
			set = socket_put_back(rd->fd, toggles[i].name, was[i], e);
		r = set < 0 ? set : r;
	}
	return r;
}

static int save_all(struct reader *rd, int queued, uint64_t carried, struct error *e)
{
	int was[NTOGGLES], r = look_all(rd, was, e);
	struct error back = {};

	if (r < 0)
		return r;
	r = toggle_all(rd, was, e);
	if (r >= 0)
		r = peek_all(rd, e);
	if (r >= 0)
		r = add_unseen(rd, e);
	if (r >= 0)
		r = check_all(rd, queued, carried, e);
	if (r >= 0 && rd->stream)
		r = save_mark(rd, queued, e);
	if (toggle_back(rd, was, &back) < 0 && r >= 0) {
		*e = back;
		r = back.err;
	}
	return file_absolve(rd->c, rd->entry, r, e);
}

/* Without disturbing anything: is there anything at all? */
static bool is_empty(const struct reader *rd, int queued)
{
	int offset = -1, at_mark = 0;
	socklen_t len = sizeof(offset);
	char byte;

	if (queued)
		return false;
	if (rd->stream)
		return ioctl(rd->fd, SIOCATMARK, &at_mark) < 0 ? !socket_unsure(errno) : !at_mark;
	/* One that has its own offset may look beyond the end. */
	if (getsockopt(rd->fd, SOL_SOCKET, SO_PEEK_OFF, &offset, &len) == 0 && offset >= 0)
		return false;
	return recv(rd->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
}

int unix_queue_save(struct checkpoint *c, const struct file_entry *entry, int fd, uint64_t carried,
		    Reprise__UnixSocket *m, struct scratch *s, struct error *e)
{
	struct reader rd = {.c = c,
			    .entry = entry,
			    .fd = fd,
			    .m = m,
			    .s = s,
			    .stream = m->socket->type == SOCK_STREAM};
	int queued = 0, r;

	/* Not for sockets that are not connected. */
	if (ioctl(fd, SIOCINQ, &queued) < 0 && socket_unsure(errno))
		return error_errno(e, -errno, E_FILE_STATE, "cannot ask what is in its queue");
	if (is_empty(&rd, queued))
		return 0;
	/* All of a stream fits into one look. */
	rd.size = queued < (int)MESSAGE_MAX ? MESSAGE_MAX : (size_t)queued + 1;
	rd.buf = malloc(rd.size);
	if (!rd.buf)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for queued data");
	r = save_all(&rd, queued, carried, e);
	if (r >= 0 && rd.list.n) {
		m->queue = scratch_copy(s, rd.list.v, rd.list.n * sizeof(*rd.list.v));
		m->n_queue = rd.list.n;
		if (!m->queue)
			r = error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for queued data");
	}
	vec_free(&rd.list);
	free(rd.buf);
	return r;
}

/* The tasks run: SO_PEEK_OFF is left alone, and so the first message that carries any is all that
 * is seen. */
int unix_queue_look(struct checkpoint *c, const struct file_entry *entry, int fd, uint64_t carried,
		    struct error *e)
{
	struct reader rd = {.c = c, .fd = fd};
	socklen_t len = sizeof(rd.at);
	struct peeked p = {};
	uint64_t seen = 0, id;
	char byte;
	int r = 0;

	rd.buf = &byte;
	if (getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &rd.at, &len) == 0 && rd.at < 0)
		peek(&rd, 1, &p);
	for (size_t i = 0; i < p.nfds && r >= 0; i++, seen++)
		r = file_in_flight(c, entry, take_fd(&p.fds[i]), &id, e);
	peeked_drop(&p);
	if (seen < carried)
		c->files->unseen = true;
	return r;
}
