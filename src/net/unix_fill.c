/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues of Unix sockets at the restart: what waited there is sent again, with the descriptors that
 * it carried and in the name of who had sent it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/context.h"
#include "net/unix.h"

/* What is sent along with a message. */
struct control {
	char bytes[CMSG_SPACE(UNIX_FDS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))]
		__attribute__((aligned(8)));
	size_t len;
};

static void *add_control(struct control *x, int type, size_t size)
{
	struct cmsghdr *c = (struct cmsghdr *)(x->bytes + x->len);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(size);
	x->len += CMSG_SPACE(size);
	return CMSG_DATA(c);
}

/* A sender that is no task of the tree is dead for those that come back: it gets our pid. */
static void add_credentials(struct restart *r, const Reprise__SocketData *d, struct control *x)
{
	struct ucred cred = {.pid = restart_real_pid(r, d->pid), .uid = d->uid, .gid = d->gid};

	if (!cred.pid)
		cred.pid = getpid();
	memcpy(add_control(x, SCM_CREDENTIALS, sizeof(cred)), &cred, sizeof(cred));
}

static void add_files(struct restart *r, const Reprise__SocketData *d, struct control *x)
{
	int *fds;

	if (!d->n_files)
		return;
	fds = add_control(x, SCM_RIGHTS, d->n_files * sizeof(int));
	for (size_t i = 0; i < d->n_files; i++)
		fds[i] = files_restart_fd(r, d->files[i]);
}

/* A part of a message; descriptors go with its first byte. */
static int send_part(struct restart *r, int from, const Reprise__SocketData *d, size_t begin,
		     size_t end, int flags, struct error *e)
{
	struct iovec iov = {.iov_base = d->data.data + begin, .iov_len = end - begin};
	struct control with = {}, without = {};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (!begin) {
		add_files(r, d, &with);
		add_files(r, d, &without);
	}
	if (d->credentials)
		add_credentials(r, d, &with);
	msg.msg_control = with.bytes;
	msg.msg_controllen = with.len;
	n = sendmsg(from, &msg, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno == EPERM && d->credentials) {
		/* Only root may claim to be somebody else; then it stays as it is. */
		msg.msg_control = without.bytes;
		msg.msg_controllen = without.len;
		n = sendmsg(from, &msg, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	if (n < 0 && errno == ETOOMANYREFS)
		return error_errno(e, -errno, E_CREDENTIALS,
				   "more descriptors were in flight than this user may have there "
				   "(ulimit -n)");
	if (n != (ssize_t)iov.iov_len)
		return error_errno(e, n < 0 ? -errno : -EIO, E_RESTORE,
				   "cannot put %zu bytes into the queue of a socket", iov.iov_len);
	return 0;
}

static int send_one(struct restart *r, int from, const Reprise__SocketData *d, struct error *e)
{
	return send_part(r, from, d, 0, d->data.len, 0, e);
}

/* A byte out of band that was received leaves its mark: it is received again, by `to`. */
static int send_mark(int from, int to, struct error *e)
{
	char byte = 0;

	if (send(from, &byte, 1, MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL) != 1 ||
	    recv(to, &byte, 1, MSG_OOB | MSG_DONTWAIT) != 1)
		return error_errno(e, -errno, E_RESTORE, "cannot mark a place in a queue");
	return 0;
}

/* A stream in which a byte stands out of band. */
static int send_marked(struct restart *r, int from, int to, const Reprise__UnixSocket *m,
		       struct error *e)
{
	size_t at = 0;
	int res = 0;

	for (size_t i = 0; i < m->n_queue && res >= 0; i++) {
		const Reprise__SocketData *d = m->queue[i];
		size_t len = d->data.len, here = m->mark_at - at;
		size_t after = m->mark_read ? here : here + 1;

		if (m->mark_at < at || here >= len) {
			res = send_one(r, from, d, e);
			at += len;
			continue;
		}
		if (here)
			res = send_part(r, from, d, 0, here, 0, e);
		if (res >= 0)
			res = m->mark_read ? send_mark(from, to, e)
					   : send_part(r, from, d, here, after, MSG_OOB, e);
		if (res >= 0 && after < len)
			res = send_part(r, from, d, after, len, 0, e);
		at += len;
	}
	/* Behind the last byte there can only be one that has been read. */
	if (res >= 0 && m->mark_at >= at)
		res = send_mark(from, to, e);
	return res;
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

int unix_queue_fill(struct restart *r, int from, int to, const Reprise__UnixSocket *m,
		    struct error *e)
{
	int was, res = 0;

	if (!m->n_queue && !m->mark)
		return 0;
	was = widen(from);
	if (m->mark)
		res = send_marked(r, from, to, m, e);
	for (size_t i = 0; i < m->n_queue && !m->mark && res >= 0; i++)
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
