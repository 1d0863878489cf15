/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits in the queue of a Unix socket. The first piece can simply be
 * peeked at; to see those behind it SO_PEEK_OFF has to be set, on the socket of the application,
 * for the moment: it concerns nothing but MSG_PEEK.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/socket.h"
#include "net/unix.h"

#define MESSAGE_MAX (1u << 20)

struct reader {
	const struct file_seen *f;
	Reprise__UnixSocket *m;
	struct scratch *s;
	VEC(Reprise__SocketData *) list;
	char *buf;
	bool stream;
};

static void take_credentials(struct msghdr *msg, Reprise__SocketData *d)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		struct ucred cred;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
			continue;
		memcpy(&cred, CMSG_DATA(c), sizeof(cred));
		d->credentials = true;
		d->pid = cred.pid;
		d->uid = cred.uid;
		d->gid = cred.gid;
	}
}

static int add(struct reader *rd, struct msghdr *msg, size_t len, struct error *e)
{
	Reprise__SocketData *d =
		scratch_message(rd->s, Reprise__SocketData, reprise__socket_data__init);
	Reprise__SocketData **slot = vec_push(&rd->list);
	const struct sockaddr_un *from = msg->msg_name;
	size_t head = offsetof(struct sockaddr_un, sun_path);

	if (!d || !slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for queued data");
	*slot = d;
	d->data.len = len;
	d->data.data = scratch_copy(rd->s, rd->buf, len);
	if (msg->msg_namelen > head) {
		d->sender.len = msg->msg_namelen - head;
		d->sender.data = scratch_copy(rd->s, from->sun_path, d->sender.len);
	}
	take_credentials(msg, d);
	if ((len && !d->data.data) || (d->sender.len && !d->sender.data))
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for queued data");
	return 0;
}

/* 1 when there is no more. */
static int peek_one(struct reader *rd, struct error *e)
{
	struct sockaddr_un from;
	char control[256] __attribute__((aligned(8)));
	struct iovec iov = {.iov_base = rd->buf, .iov_len = MESSAGE_MAX};
	struct msghdr msg = {.msg_name = &from,
			     .msg_namelen = sizeof(from),
			     .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(rd->f->local, &msg, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 &&
	    (errno == EAGAIN || errno == ECONNRESET || errno == EINVAL || errno == ENOTCONN))
		return 1;
	if (n < 0)
		return error_errno(e, -errno, E_FILE_STATE, "cannot look into its queue");
	/* A message without bytes, or the end? Behind a closed end nothing follows. */
	if (n == 0 && (rd->stream || (rd->m->shutdown & UNIX_RCV_SHUTDOWN)))
		return 1;
	if (msg.msg_flags & MSG_TRUNC)
		return error_set(e, -EMSGSIZE, E_FILE_STATE, "a message in its queue is too long");
	return add(rd, &msg, (size_t)n, e);
}

static int peek_all(struct reader *rd, struct error *e)
{
	int original = -1, offset = 0, r;
	socklen_t len = sizeof(original);

	if (getsockopt(rd->f->local, SOL_SOCKET, SO_PEEK_OFF, &original, &len) < 0 ||
	    setsockopt(rd->f->local, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)) < 0)
		return error_errno(e, -errno, E_KERNEL_TOO_OLD, "SO_PEEK_OFF");
	do
		r = peek_one(rd, e);
	while (r == 0);
	if (setsockopt(rd->f->local, SOL_SOCKET, SO_PEEK_OFF, &original, sizeof(original)) < 0)
		return error_errno(e, -errno, E_INTERNAL, "SO_PEEK_OFF");
	return r < 0 ? r : 0;
}

static int check_all(const struct reader *rd, int queued, struct error *e)
{
	size_t sum = 0;

	vec_for_each (d, &rd->list)
		sum += (*d)->data.len;
	if (rd->stream && sum != (size_t)queued)
		return error_set(e, -EIO, E_FILE_STATE,
				 "only %zu of %d bytes in its queue are seen", sum, queued);
	return 0;
}

int unix_queue_save(const struct file_seen *f, Reprise__UnixSocket *m, struct scratch *s,
		    struct error *e)
{
	struct reader rd = {.f = f, .m = m, .s = s, .stream = m->socket->type == SOCK_STREAM};
	int queued = 0, r;
	char byte;

	ignore(ioctl(f->local, SIOCINQ, &queued), "not for sockets that are not connected");
	/* Without disturbing anything: is there anything at all? */
	if (!queued && (rd.stream || recv(f->local, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0))
		return 0;
	rd.buf = malloc(MESSAGE_MAX);
	if (!rd.buf)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for queued data");
	r = peek_all(&rd, e);
	if (r >= 0)
		r = check_all(&rd, queued, e);
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

/* ---- restart ---- */

/* Only root may claim to be somebody else; then it stays as it is. */
static int send_one(struct restart *r, int from, const Reprise__SocketData *d, struct error *e)
{
	struct ucred cred = {.pid = d->credentials ? restart_real_pid(r, d->pid) : 0,
			     .uid = d->uid,
			     .gid = d->gid};
	char control[CMSG_SPACE(sizeof(cred))] __attribute__((aligned(8))) = {};
	struct iovec iov = {.iov_base = d->data.data, .iov_len = d->data.len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (cred.pid) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_CREDENTIALS;
		c->cmsg_len = CMSG_LEN(sizeof(cred));
		memcpy(CMSG_DATA(c), &cred, sizeof(cred));
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
	}
	n = sendmsg(from, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno == EPERM && cred.pid) {
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
		n = sendmsg(from, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	if (n != (ssize_t)d->data.len)
		return error_errno(e, n < 0 ? -errno : -EIO, E_RESTORE,
				   "cannot put %zu bytes into the queue of a socket", d->data.len);
	return 0;
}

/* What one sender had queued may be more than this one's buffer takes. */
static int widen(int fd)
{
	int was = 0, wanted = 64 << 20;
	socklen_t len = sizeof(was);

	getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &was, &len);
	ignore(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &wanted, sizeof(wanted)),
	       "for root only; sending will tell");
	return was;
}

static void narrow(int fd, int was)
{
	was /= 2; /* doubled when set */
	ignore(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &was, sizeof(was)), "as it was");
}

int unix_queue_fill(struct restart *r, int from, const Reprise__UnixSocket *m, struct error *e)
{
	int was, res = 0;

	if (!m->n_queue)
		return 0;
	was = widen(from);
	for (size_t i = 0; i < m->n_queue && res >= 0; i++)
		res = send_one(r, from, m->queue[i], e);
	narrow(from, was);
	return res;
}

/* The socket of the tree that had this name: its messages are sent by itself. */
static int find_sender(struct restart *r, const ProtobufCBinaryData *name)
{
	vec_for_each (f, &r->files->files) {
		const Reprise__UnixSocket *m = f->msg->unix_socket;

		if (m && name->len && m->socket->type == SOCK_DGRAM && m->name.len == name->len &&
		    !memcmp(m->name.data, name->data, name->len))
			return f->fd;
	}
	return -1;
}

static int send_from(struct restart *r, uint64_t id, const Reprise__UnixSocket *m,
		     const Reprise__SocketData *d, struct error *e)
{
	_cleanup_(close_fd) int own = -EBADF;
	Reprise__UnixSocket sender = REPRISE__UNIX_SOCKET__INIT;
	int fd = find_sender(r, &d->sender), res;

	if (fd < 0) {
		own = fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot make a socket");
		sender.name = d->sender;
		res = unix_name_bind(r, 0, fd, &sender, e);
		if (res < 0)
			return res;
		widen(fd);
	}
	/* Sockets of the tree are connected to their peers later. */
	res = unix_name_connect(r, fd, id, m, e);
	if (res >= 0)
		res = send_one(r, fd, d, e);
	if (own < 0) {
		const struct sockaddr none = {.sa_family = AF_UNSPEC};

		ignore(connect(fd, &none, sizeof(none)), "a datagram socket can always do that");
	}
	return res;
}

int unix_queue_fill_datagrams(struct restart *r, uint64_t id, int fd, const Reprise__UnixSocket *m,
			      struct error *e)
{
	for (size_t i = 0; i < m->n_queue; i++) {
		int res = send_from(r, id, m, m->queue[i], e);

		if (res < 0)
			return res;
	}
	return 0;
}
