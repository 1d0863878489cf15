/* SPDX-License-Identifier: Apache-2.0 */
/* Unix sockets of an image: all that the restart relies on. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "fs/context.h"
#include "net/socket.h"
#include "net/unix.h"

const Reprise__UnixSocket *unix_socket_of(const struct restart *r, uint64_t id)
{
	const Reprise__File *msg = id ? restart_find(r, RECORD_FILE, id) : NULL;

	return msg && msg->kind == FILE_UNIX ? msg->unix_socket : NULL;
}

/* A relative name, from the directory in which it was bound, is the end of the path. */
static bool is_consistent(const Reprise__UnixSocket *m)
{
	size_t len = strlen(m->directory),
	       tail = m->name.len ? strnlen((const char *)m->name.data, m->name.len) : 0;
	size_t slash = len > 0 && m->directory[len - 1] != '/';

	return !len || (m->directory[0] == '/' && tail && m->name.data[0] != '/' &&
			strlen(m->path) == len + slash + tail &&
			!strncmp(m->path, m->directory, len) && m->path[len + slash - 1] == '/' &&
			!memcmp(m->path + len + slash, m->name.data, tail));
}

static int check_names(const Reprise__UnixSocket *m, struct error *e)
{
	const size_t most = sizeof(((struct sockaddr_un *)0)->sun_path);

	if (m->name.len > most || m->peer_name.len > most || (m->path[0] && m->path[0] != '/') ||
	    !is_consistent(m))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a socket with an improper name");
	if (m->n_peer_groups > 65536)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a peer with too many groups");
	if (m->state == UNIX_RECONNECT && (!m->peer_name.len || m->n_queue || m->mark))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a socket that cannot be connected again");
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

	if (res >= 0 && (m->mark || m->inq) && m->socket->type != SOCK_STREAM)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a mark among messages");
	return res;
}

static int check_backlog(const struct restart *r, const Reprise__UnixSocket *m, struct error *e)
{
	int res = 0;

	for (size_t i = 0; i < m->n_pending; i++) {
		const Reprise__UnixSocket *client = unix_socket_of(r, m->pending[i]);

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

	if (!m || m->state < UNIX_UNCONNECTED || m->state > UNIX_RECONNECT)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper Unix socket");
	res = socket_validate(m->socket, AF_UNIX, e);
	if (res >= 0)
		res = check_names(m, e);
	if (res >= 0)
		res = check_queue(r, m, e);
	if (res < 0)
		return res;
	peer = unix_socket_of(r, m->peer);
	if (m->peer && (!peer || !peer->socket || peer->socket->type != m->socket->type))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a Unix socket without its peer");
	peer = unix_socket_of(r, m->partner);
	if (m->partner && (!peer || !peer->socket || peer->socket->type != SOCK_DGRAM ||
			   peer->state != UNIX_CONNECTED))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a Unix socket without its partner");
	return check_backlog(r, m, e);
}
