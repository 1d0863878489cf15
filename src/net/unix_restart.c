/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix sockets at the restart, in three passes: sockets are made, bound, paired
 * (restart); queues are filled (finish); then datagram sockets are connected, backlogs
 * filled and connections shut down (restart_all).
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/bpf_attached.h"
#include "fs/file_private.h"
#include "net/socket.h"
#include "net/socket_kinds.h"
#include "net/unix.h"
#include "net/unix_cred.h"

#define OPT_SO_INQ 84 /* 6.17 */

/* The other side has gone, or is not wanted. */
static bool is_orphan(const struct restart *r, const Reprise__UnixSocket *m)
{
	return m->state == UNIX_PEER_GONE || (m->state == UNIX_RECONNECT && r->peers_gone);
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
	int res = socket_make(r, m->socket, &fd, e);

	if (res >= 0)
		res = socket_set_options(fd, m->socket, e);
	if (res >= 0)
		res = unix_name_bind(r, id, fd, m, e);
	if (res >= 0 && m->state == UNIX_LISTENING)
		res = unix_cred_listen(r, m, fd, wide_backlog(m), e);
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
	int res = unix_cred_pair(r, m, fds, e);

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
	res = unix_cred_listen(r, client, fd, 1, e);
	if (res < 0)
		return res;
	*ret_fd = take_fd(&fd);
	return 0;
}

/* As SO_PEERCRED of `seen_by` says. */
static int connect_to(struct restart *r, const Reprise__UnixSocket *seen_by, int fd,
		      uint64_t listener, const Reprise__UnixSocket *to, struct error *e)
{
	_cleanup_(unix_address_free) struct unix_address at = {};
	int res = unix_address_of(r, listener, to, &at, e);

	return res < 0 ? res : unix_cred_connect(r, seen_by, fd, &at, e);
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
		res = connect_to(r, accepted, fds[0], listener ? listener->id : 0, accepted, e);
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
	const Reprise__UnixSocket *peer = unix_socket_of(r, m->peer);

	if (!peer || m->peer == id)
		return false;
	return !peer->name.len || (peer->peer == id && !m->name.len);
}

/* The other of a pair, when only that one is connected to this. */
static struct file_open *partner_of(const struct restart *r, const struct file_open *f)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket,
				  *partner = unix_socket_of(r, m->partner);

	if (!partner || m->name.len || m->socket->type != SOCK_DGRAM)
		return NULL;
	return file_open_find(r, m->partner);
}

static int open_connected(struct restart *r, struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket, *peer = unix_socket_of(r, m->peer);
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

/* The name of one that has gone can still be asked for; it is as good as can be had. */
static void name_gone(struct restart *r, int fd, const Reprise__UnixSocket *gone)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct error unused = {};

	if (!gone->name.len)
		return;
	if (gone->name.data[0]) {
		ignore(unix_name_bind(r, 0, fd, gone, &unused), "it may need root");
		return;
	}
	memcpy(un.sun_path, gone->name.data, gone->name.len);
	ignore(bind(fd, (struct sockaddr *)&un,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + gone->name.len)),
	       "somebody else may have it by now");
}

/* One whose other side has gone. If it was accepted, its name is that of a listener that lives. */
static int open_orphan(struct restart *r, struct file_open *f, int *ret_peer, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket;
	Reprise__UnixSocket gone = REPRISE__UNIX_SOCKET__INIT;
	struct file_open *listener = NULL;
	int fds[2] = {-1, -1}, res = 0;

	if (m->socket->type == SOCK_DGRAM && m->name.len)
		return make_single(r, f->id, m, &f->other, e);
	gone.socket = m->socket;
	if (m->name.len)
		res = open_listener(r, m, &listener, e);
	if (res >= 0 && listener) {
		res = connect_accept(r, &gone, 0, m, fds, e);
		f->other = fds[1];
		*ret_peer = fds[0];
	} else if (res >= 0) {
		res = make_pair(r, m, NULL, f->id, 0, fds, e);
		f->other = fds[0];
		*ret_peer = fds[1];
	}
	gone.name = m->peer_name;
	if (!gone.name.len && m->n_queue)
		gone.name = m->queue[0]->sender;
	if (res >= 0)
		name_gone(r, *ret_peer, &gone);
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
	else if (f->other < 0 && is_orphan(r, m))
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

/* A datagram socket with a name may hold messages of several. */
static int finish_named_orphan(struct restart *r, const struct file_open *f, struct error *e)
{
	_cleanup_(close_fd) int gone = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(un);
	int res = unix_queue_fill_datagrams(r, f->id, f->fd, f->msg->unix_socket, e);

	if (res < 0)
		return res;
	/* Any name will do. */
	if (gone < 0 || bind(gone, (struct sockaddr *)&un, sizeof(sa_family_t)) < 0 ||
	    getsockname(gone, (struct sockaddr *)&un, &len) < 0 ||
	    connect(f->fd, (struct sockaddr *)&un, len) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot connect a socket for a moment");
	return 0;
}

static int finish_orphan(struct restart *r, struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket;
	int res;

	if (f->other < 0)
		return finish_named_orphan(r, f, e);
	res = unix_queue_fill(r, f->other, f->fd, m, e);

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
	const Reprise__UnixSocket *m = f->msg->unix_socket, *peer = unix_socket_of(r, m->peer);
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
	if (comes_from_pair(r, f->id, m) && unix_socket_of(r, m->peer)->peer == f->id)
		return unix_queue_fill(r, files_restart_fd(r, m->peer), f->fd, m, e);
	if (!m->name.len)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "messages for a socket that nobody can send to");
	return unix_queue_fill_datagrams(r, f->id, f->fd, m, e);
}

int unix_restart_finish(struct restart *r, uint64_t id, const Reprise__File *msg, int fd,
			struct error *e)
{
	const Reprise__UnixSocket *m = msg->unix_socket, *peer = unix_socket_of(r, m->peer);
	struct file_open *f = file_open_find(r, id);

	if (msg->outside)
		return 0;
	if (is_orphan(r, m))
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

/* The first process that has it open. */
static const struct restart_task *holder_of(const struct restart *r, uint64_t file)
{
	vec_for_each (p, &r->processes)
		vec_for_each (t, &p->tasks) {
			const Reprise__Files *table =
				t->msg->is_zombie ? NULL
						  : restart_find(r, RECORD_FILES, t->msg->files);

			for (size_t i = 0; table && i < table->n_fds; i++)
				if (table->fds[i]->file == file)
					return t;
		}
	return NULL;
}

/* Who will have made a connection: the owner of the socket, in a process that has it. */
static void connected_by(const struct restart *r, uint64_t id, Reprise__UnixSocket *seen_by)
{
	const Reprise__Socket *m = unix_socket_of(r, id)->socket;
	const struct restart_task *t = holder_of(r, id);

	seen_by->peer_cred = true;
	seen_by->peer_uid = m->uid;
	seen_by->peer_gid = m->gid;
	seen_by->peer_pid = t ? t->process->vpid : 0;
	if (t && t->msg->creds) {
		seen_by->peer_groups = t->msg->creds->groups;
		seen_by->n_peer_groups = t->msg->creds->n_groups;
	}
}

/* Without waiting for room in a backlog; whoever listens there may just be about to start. */
static int connect_outside(struct restart *r, const struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket;
	Reprise__UnixSocket seen_by = REPRISE__UNIX_SOCKET__INIT;
	struct unix_address to = {.un.sun_family = AF_UNIX};
	int flags = fcntl(f->fd, F_GETFL), res;

	if (r->peers_gone)
		return 0;
	memcpy(to.un.sun_path, m->peer_name.data, m->peer_name.len);
	to.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + m->peer_name.len);
	connected_by(r, f->id, &seen_by);
	if (flags < 0 || fcntl(f->fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return error_errno(e, -errno, E_SYSTEM, "F_SETFL of a socket");
	do {
		error_clear(e);
		res = unix_cred_connect(r, &seen_by, f->fd, &to, e);
	} while ((res == -EAGAIN || res == -ECONNREFUSED || res == -ENOENT) &&
		 files_restart_patience(r));
	ignore(fcntl(f->fd, F_SETFL, flags), "as it was");
	return res;
}

static int connect_by_name(struct restart *r, const struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket, *peer = unix_socket_of(r, m->peer);

	if (m->state == UNIX_RECONNECT)
		return connect_outside(r, f, e);
	if (m->state != UNIX_CONNECTED || m->socket->type != SOCK_DGRAM)
		return 0;
	if (!peer)
		return connect_outside(r, f, e);
	if (comes_from_pair(r, f->id, m))
		return 0;
	return unix_name_connect(r, f->fd, m->peer, peer, e);
}

/* What the server will see of a client is nowhere to be read before it accepts, but in the memory
 * of the kernel: most likely a process that has the client's socket. */
static int connect_waiting(struct restart *r, const struct file_open *f, size_t i, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket,
				  *client = unix_socket_of(r, m->pending[i]);
	const Reprise__UnixWaiting *w = m->n_waiting ? m->waiting[i] : NULL;
	Reprise__UnixSocket seen_by = REPRISE__UNIX_SOCKET__INIT;
	_cleanup_(close_fd) int gone = -EBADF;
	int res, fd;

	if (w) {
		seen_by.peer_cred = true;
		seen_by.peer_pid = w->pid;
		seen_by.peer_uid = w->uid;
		seen_by.peer_gid = w->gid;
	} else {
		connected_by(r, m->pending[i], &seen_by);
	}
	if (!client) {
		gone = socket(AF_UNIX, m->socket->type | SOCK_CLOEXEC, 0);
		if (gone < 0)
			return error_errno(e, -errno, E_RESTORE, "cannot make a socket");
	}
	fd = client ? files_restart_fd(r, m->pending[i]) : gone;
	res = connect_to(r, &seen_by, fd, f->id, m, e);
	if (res < 0 || !w)
		return res;
	seen_by.queue = w->queue;
	seen_by.n_queue = w->n_queue;
	return unix_queue_fill(r, fd, -1, &seen_by, e);
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
		return unix_cred_listen(r, m, f->fd, m->backlog, e);
	return 0;
}

static int shut_down(const struct restart *r, const struct file_open *f, struct error *e)
{
	const Reprise__UnixSocket *m = f->msg->unix_socket;
	int how = m->shutdown == 3		     ? SHUT_RDWR
		  : m->shutdown == UNIX_RCV_SHUTDOWN ? SHUT_RD
						     : SHUT_WR;

	if (!m->shutdown || is_orphan(r, m))
		return 0;
	if (shutdown(f->fd, how) < 0 && errno != ENOTCONN)
		return error_errno(e, -errno, E_RESTORE, "cannot shut down a connection");
	return 0;
}

static int set_inq(int fd, struct error *e)
{
	const int on = 1;

	return setsockopt(fd, SOL_SOCKET, OPT_SO_INQ, &on, sizeof(on)) < 0
		       ? error_errno(e, -errno, E_KERNEL_TOO_OLD, "cannot set SO_INQ of a socket")
		       : 0;
}

int unix_restart_all(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (f, &r->files->files) {
		if (f->ops != &unix_file_ops || f->msg->outside)
			continue;
		res = connect_by_name(r, f, e);
		if (res >= 0)
			res = fill_backlog(r, f, e);
		if (res < 0)
			return res;
	}
	vec_for_each (f, &r->files->files) {
		if (res < 0 || f->ops != &unix_file_ops || f->msg->outside)
			continue;
		res = shut_down(r, f, e);
		if (res >= 0)
			res = bpf_attached_restore(r, f->fd, f->msg->unix_socket->socket, e);
		if (res >= 0)
			res = socket_set_last(f->fd, f->msg->unix_socket->socket, e);
		if (res >= 0 && f->msg->unix_socket->inq)
			res = set_inq(f->fd, e);
	}
	unix_names_end(r);
	return res;
}

void unix_restart_end(struct restart *r)
{
	unix_names_end(r);
}
