/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix sockets at the restart, in three passes: sockets are made, bound, paired
 * (restart); queues are filled (finish); then datagram sockets are connected, backlogs
 * filled and connections shut down (restart_all).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/file_private.h"
#include "net/socket.h"
#include "net/socket_kinds.h"
#include "net/unix.h"
#include "net/unix_cred.h"

static const Reprise__UnixSocket *socket_of(const struct restart *r, uint64_t id)
{
	const Reprise__File *msg = id ? restart_find(r, RECORD_FILE, id) : NULL;

	return msg && msg->kind == FILE_UNIX ? msg->unix_socket : NULL;
}

static int check_names(const Reprise__UnixSocket *m, struct error *e)
{
	const size_t most = sizeof(((struct sockaddr_un *)0)->sun_path);

	if (m->name.len > most || m->peer_name.len > most || (m->path[0] && m->path[0] != '/'))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a socket with an improper name");
	return 0;
}

static int check_messages(const struct restart *r, size_t n, Reprise__SocketData *const *queue,
			  struct error *e)
{
	const size_t most = sizeof(((struct sockaddr_un *)0)->sun_path);

	for (size_t i = 0; i < n; i++) {
		const Reprise__SocketData *d = queue[i];

		if (d->sender.len > most)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a message with an improper sender");
		if (d->n_files > UNIX_FDS_MAX)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a message with %zu descriptors", d->n_files);
		for (size_t k = 0; k < d->n_files; k++)
			if (!restart_find(r, RECORD_FILE, d->files[k]))
				return error_set(e, -EBADMSG, E_IMAGE_INVALID,
						 "a message carries no open file");
	}
	return 0;
}

static int check_queue(const struct restart *r, const Reprise__UnixSocket *m, struct error *e)
{
	int res = check_messages(r, m->n_queue, m->queue, e);

	if (res >= 0 && m->mark && m->socket->type != SOCK_STREAM)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a mark among messages");
	return res;
}

static int check_backlog(const struct restart *r, const Reprise__UnixSocket *m, struct error *e)
{
	int res = 0;

	for (size_t i = 0; i < m->n_pending; i++) {
		const Reprise__UnixSocket *client = socket_of(r, m->pending[i]);

		if (m->pending[i] ? !client || client->state != UNIX_PENDING || !client->socket
				  : !m->n_waiting)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper backlog");
	}
	if (m->n_waiting && m->n_waiting != m->n_pending)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper backlog");
	for (size_t i = 0; i < m->n_waiting && res >= 0; i++)
		res = check_messages(r, m->waiting[i]->n_queue, m->waiting[i]->queue, e);
	return res;
}

int unix_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__UnixSocket *m = msg->unix_socket, *peer;
	int res;

	if (!m || m->state < UNIX_UNCONNECTED || m->state > UNIX_PENDING)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper Unix socket");
	res = socket_validate(m->socket, AF_UNIX, e);
	if (res >= 0)
		res = check_names(m, e);
	if (res >= 0)
		res = check_queue(r, m, e);
	if (res < 0)
		return res;
	peer = socket_of(r, m->peer);
	if (m->peer && (!peer || !peer->socket || peer->socket->type != m->socket->type))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a Unix socket without its peer");
	peer = socket_of(r, m->partner);
	if (m->partner && (!peer || !peer->socket || peer->socket->type != SOCK_DGRAM ||
			   peer->state != UNIX_CONNECTED))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a Unix socket without its partner");
	return check_backlog(r, m, e);
}

/* ---- first pass ---- */

/* A listener may have made room for fewer than wait there already: connect() would sleep. */
static int wide_backlog(const Reprise__UnixSocket *m)
{
	return m->backlog > (int)m->n_pending ? m->backlog : (int)m->n_pending;
}

static int make_single(struct restart *r, uint64_t id, const Reprise__UnixSocket *m, int *ret_fd,
		       struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	int res = socket_make(m->socket, &fd, e);

	if (res >= 0)
		res = socket_set_options(fd, m->socket, e);
	if (res >= 0)
		res = unix_name_bind(r, id, fd, m, e);
	if (res >= 0 && m->state == UNIX_LISTENING)
		res = unix_cred_listen(m, fd, wide_backlog(m), e);
	if (res < 0)
		return res;
	*ret_fd = take_fd(&fd);
	return 0;
}

static int dress(int fd, const Reprise__UnixSocket *m, struct error *e)
{
	int res = socket_set_owner(fd, m->socket, e);

	return res < 0 ? res : socket_set_options(fd, m->socket, e);
}

static int make_pair(struct restart *r, const Reprise__UnixSocket *m,
		     const Reprise__UnixSocket *peer, uint64_t id, uint64_t peer_id, int fds[2],
		     struct error *e)
{
	int res = unix_cred_pair(m, fds, e);

	if (res >= 0)
		res = dress(fds[0], m, e);
	if (res >= 0)
		res = unix_name_bind(r, id, fds[0], m, e);
	if (res >= 0 && peer)
		res = dress(fds[1], peer, e);
	if (res >= 0 && peer)
		res = unix_name_bind(r, peer_id, fds[1], peer, e);
	return res;
}

static bool same_name(const Reprise__UnixSocket *a, const Reprise__UnixSocket *b)
{
	return a->name.len == b->name.len && !memcmp(a->name.data, b->name.data, a->name.len) &&
	       !strcmp(a->path, b->path);
}

/* The listener from which a socket was accepted has its name: it is opened before its turn. */
static int open_listener(struct restart *r, const Reprise__UnixSocket *accepted,
			 struct file_open **ret, struct error *e)
{
	*ret = NULL;
	vec_for_each (f, &r->files->files) {
		const Reprise__UnixSocket *m = f->msg->unix_socket;

		if (f->msg->kind != FILE_UNIX || m->state != UNIX_LISTENING ||
		    m->socket->type != accepted->socket->type || !same_name(m, accepted))
			continue;
		*ret = f;
		return f->fd >= 0 ? 0 : file_open_now(r, f, e);
	}
	return 0;
}

/* One that has gone: it comes back for the moment, with the name that its sockets still carry. */
static int make_listener(struct restart *r, const Reprise__UnixSocket *client,
			 const Reprise__UnixSocket *accepted, int *ret_fd, struct error *e)
{
	_cleanup_(close_fd) int fd = socket(AF_UNIX, accepted->socket->type | SOCK_CLOEXEC, 0);
	int res;

	if (fd < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make a socket");
	res = unix_name_bind(r, 0, fd, accepted, e);
	if (res < 0)
		return res;
	res = unix_cred_listen(client, fd, 1, e);
	if (res < 0)
		return res;
	*ret_fd = take_fd(&fd);
	return 0;
}

struct connection {
	struct restart *r;
	int fd;
	uint64_t listener;
	const Reprise__UnixSocket *to;
	struct error *e;
};

static int call_connect(void *arg)
{
	const struct connection *x = arg;

	return unix_name_connect(x->r, x->fd, x->listener, x->to, x->e);
}

/* fds[0] of `client`, fds[1] of `accepted`. */
static int connect_accept(struct restart *r, const Reprise__UnixSocket *client, uint64_t client_id,
			  const Reprise__UnixSocket *accepted, int fds[2], struct error *e)
{
	_cleanup_(close_fd) int own = -EBADF;
	struct file_open *listener;
	int res = open_listener(r, accepted, &listener, e);

	if (res >= 0 && !listener)
		res = make_listener(r, client, accepted, &own, e);
	if (res >= 0)
		res = make_single(r, client_id, client, &fds[0], e);
	if (res >= 0)
		res = unix_cred_run(accepted, call_connect,
				    &(struct connection){.r = r,
							 .fd = fds[0],
							 .listener = listener ? listener->id : 0,
							 .to = accepted,
							 .e = e},
				    e);
	if (res < 0)
		return res;
	fds[1] = accept4(listener ? listener->fd : own, NULL, NULL, SOCK_CLOEXEC);
	if (fds[1] < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot accept a connection of our own");
	return dress(fds[1], accepted, e);
}

/*
 * Datagram sockets are connected one way. A peer without a name can only have come from
 * socketpair(); others are connected when all have been filled, as that limits who may send to
 * them.
 */
static bool comes_from_pair(const struct restart *r, uint64_t id, const Reprise__UnixSocket *m)
{
	const Reprise__UnixSocket *peer = socket_of(r, m->peer);

	if (!peer || m->peer == id)
		return false;
	return !peer->name.len || (peer->peer == id && !m->name.len);
}

/* The other of a pair, when only that one is connected to this. */
static struct file_open *partner_of(const struct restart *r, const struct file_open *f)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket, *partner = socket_of(r, m->partner);

	if (!partner || m->name.len || m->socket->type != SOCK_DGRAM)
		return NULL;
	return file_open_find(r, m->partner);
}

static int open_connected(struct restart *r, struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket, *peer = socket_of(r, m->peer);
	struct file_open *other = m->peer ? file_open_find(r, m->peer) : NULL;
	int fds[2] = {-1, -1}, res;
	bool datagram = m->socket->type == SOCK_DGRAM;

	if (!peer || (datagram && !comes_from_pair(r, f->id, m)))
		return make_single(r, f->id, m, &f->other, e);
	if (datagram || (!m->name.len && !peer->name.len)) {
		res = make_pair(r, m, peer, f->id, m->peer, fds, e);
	} else if (peer->name.len) {
		res = connect_accept(r, m, f->id, peer, fds, e);
	} else {
		int reversed[2] = {-1, -1};

		res = connect_accept(r, peer, m->peer, m, reversed, e);
		fds[0] = reversed[1];
		fds[1] = reversed[0];
	}
	f->other = fds[0];
	other->other = fds[1];
	return res;
}

/* One whose other side has gone. If it was accepted, its name is that of a listener that lives. */
static int open_orphan(struct restart *r, struct file_open *f, int *ret_peer, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket;
	Reprise__UnixSocket client = REPRISE__UNIX_SOCKET__INIT;
	struct file_open *listener = NULL;
	int fds[2] = {-1, -1}, res = 0;

	client.socket = m->socket;
	if (m->name.len && m->socket->type != SOCK_DGRAM)
		res = open_listener(r, m, &listener, e);
	if (res >= 0 && listener) {
		res = connect_accept(r, &client, 0, m, fds, e);
		f->other = fds[1];
		*ret_peer = fds[0];
		return res;
	}
	if (res >= 0)
		res = make_pair(r, m, NULL, f->id, 0, fds, e);
	f->other = fds[0];
	*ret_peer = fds[1];
	return res;
}

int unix_restart_open(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
		      struct error *e)
{
	const Reprise__UnixSocket *m = msg->unix_socket;
	struct file_open *f = file_open_find(r, id);
	int res = 0, peer = -1;

	if (msg->outside)
		return file_outside_restart(r, msg, ret_fd, e);
	if (f->other < 0 && partner_of(r, f))
		res = open_connected(r, partner_of(r, f), e);
	else if (f->other < 0 && m->state == UNIX_CONNECTED)
		res = open_connected(r, f, e);
	else if (f->other < 0 && m->state == UNIX_PEER_GONE)
		res = open_orphan(r, f, &peer, e);
	else if (f->other < 0)
		res = make_single(r, id, m, &f->other, e);
	if (res < 0) {
		close_fd(&peer);
		return res;
	}
	if (f->other < 0)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a Unix socket of nobody's pair");
	/* Until its queue has been filled, an orphan keeps the other side here. */
	*ret_fd = f->other;
	f->other = peer;
	return 0;
}

/* ---- second pass ---- */

static int finish_orphan(struct restart *r, struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket;
	int res = unix_queue_fill(r, f->other, f->fd, m, e);

	/* A peer that closes with something unread resets the connection (unix_release_sock()). */
	if (res >= 0 && m->reset && send(f->fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		res = error_errno(e, -errno, E_RESTORE, "cannot reset a connection");
	close_fd(&f->other);
	return res;
}

/*
 * One of a pair may be connected elsewhere by now, or not at all. That drops what is in its queue
 * (unix_dgram_disconnected()), so it comes before.
 */
static int leave_partner(struct restart *r, const struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket, *peer = socket_of(r, m->peer);
	const struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct sockaddr_un un;
	socklen_t len = sizeof(un);

	if (comes_from_pair(r, f->id, m) || getpeername(f->fd, (struct sockaddr *)&un, &len) < 0)
		return 0;
	if (connect(f->fd, &none, sizeof(none)) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot disconnect a socket");
	if (!peer)
		return 0;
	return unix_name_connect(r, f->fd, m->peer, peer, e);
}

static int finish_datagram(struct restart *r, const struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket;
	int res = leave_partner(r, f, e);

	if (res < 0 || !m->n_queue)
		return res;
	/* To one without a name only the other of the pair can have sent. */
	if (partner_of(r, f))
		return unix_queue_fill(r, partner_of(r, f)->fd, f->fd, m, e);
	if (comes_from_pair(r, f->id, m) && socket_of(r, m->peer)->peer == f->id)
		return unix_queue_fill(r, files_restart_fd(r, m->peer), f->fd, m, e);
	if (!m->name.len)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "messages for a socket that nobody can send to");
	return unix_queue_fill_datagrams(r, f->id, f->fd, m, e);
}

int unix_restart_finish(struct restart *r, uint64_t id, const Reprise__File *msg, int fd,
			struct error *e)
{
	const Reprise__UnixSocket *m = msg->unix_socket, *peer = socket_of(r, m->peer);
	struct file_open *f = file_open_find(r, id);

	if (msg->outside)
		return 0;
	if (m->state == UNIX_PEER_GONE)
		return finish_orphan(r, f, e);
	if (m->socket->type == SOCK_DGRAM)
		return finish_datagram(r, f, e);
	if (!m->n_queue && !m->mark)
		return 0;
	if (peer && peer->peer == id)
		return unix_queue_fill(r, files_restart_fd(r, m->peer), fd, m, e);
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "data in the queue of a lonely socket");
}

/* ---- third pass ---- */

static int connect_datagram(struct restart *r, const struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket, *peer = socket_of(r, m->peer);

	if (m->state != UNIX_CONNECTED || m->socket->type != SOCK_DGRAM)
		return 0;
	if (!peer)
		return unix_name_connect_outside(f->fd, &m->peer_name, e);
	if (comes_from_pair(r, f->id, m))
		return 0;
	return unix_name_connect(r, f->fd, m->peer, peer, e);
}

/* What the server will see of a client is nowhere to be read before it accepts, but in the memory
 * of the kernel: most likely the owner of the client's socket. */
static int connect_waiting(struct restart *r, const struct file_open *f, size_t i, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket, *client = socket_of(r, m->pending[i]);
	const Reprise__UnixWaiting *w = m->n_waiting ? m->waiting[i] : NULL;
	Reprise__UnixSocket seen_by = REPRISE__UNIX_SOCKET__INIT;
	_cleanup_(close_fd) int gone = -EBADF;
	struct connection x = {.r = r, .listener = f->id, .to = m, .e = e};
	int res;

	seen_by.peer_cred = true;
	seen_by.peer_uid = w ? w->uid : client->socket->uid;
	seen_by.peer_gid = w ? w->gid : client->socket->gid;
	if (!client) {
		gone = socket(AF_UNIX, m->socket->type | SOCK_CLOEXEC, 0);
		if (gone < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot make a socket");
	}
	x.fd = client ? files_restart_fd(r, m->pending[i]) : gone;
	res = unix_cred_run(&seen_by, call_connect, &x, e);
	if (res < 0 || !w)
		return res;
	seen_by.queue = w->queue;
	seen_by.n_queue = w->n_queue;
	return unix_queue_fill(r, x.fd, -1, &seen_by, e);
}

static int fill_backlog(struct restart *r, const struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket;

	for (size_t i = 0; i < m->n_pending; i++) {
		int res = connect_waiting(r, f, i, e);

		if (res < 0)
			return res;
	}
	if (wide_backlog(m) != m->backlog)
		return unix_cred_listen(m, f->fd, m->backlog, e);
	return 0;
}

static int shut_down(const struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket;
	int how = m->shutdown == 3		     ? SHUT_RDWR
		  : m->shutdown == UNIX_RCV_SHUTDOWN ? SHUT_RD
						     : SHUT_WR;

	if (!m->shutdown || m->state == UNIX_PEER_GONE)
		return 0;
	if (shutdown(f->fd, how) < 0 && errno != ENOTCONN)
		return error_errno(e, -errno, E_RESTORE, "cannot shut down a connection");
	return 0;
}

int unix_restart_all(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (f, &r->files->files) {
		if (f->ops != &unix_file_ops || f->msg->outside)
			continue;
		res = connect_datagram(r, f, e);
		if (res >= 0)
			res = fill_backlog(r, f, e);
		if (res < 0)
			return res;
	}
	vec_for_each (f, &r->files->files) {
		if (res < 0 || f->ops != &unix_file_ops || f->msg->outside)
			continue;
		res = shut_down(f, e);
		if (res >= 0)
			res = socket_set_last(f->fd, f->msg->unix_socket->socket, e);
	}
	unix_names_end(r);
	return res;
}

void unix_restart_end(struct restart *r)
{
	unix_names_end(r);
}
