/* SPDX-License-Identifier: Apache-2.0 */
/* Unix sockets at the checkpoint: state, peers, names. The queues are in unix_queue.c, names in
 * unix_name.c. */
#include "net/unix.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "net/kernel_sock.h"
#include "net/socket.h"
#include "net/socket_kinds.h"
#include "net/unix_cred.h"

static bool unix_match(const struct file_seen *f)
{
	return socket_family(f) == AF_UNIX;
}

static int get_table(struct checkpoint *c, struct unix_checkpoint **ret, struct error *e)
{
	struct unix_checkpoint *u = c->files->unix_sockets;
	int r;

	if (!u)
		u = c->files->unix_sockets = calloc(1, sizeof(*u));
	if (!u)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the Unix sockets");
	*ret = u;
	if (u->read)
		return 0;
	r = unix_table_read(&u->table, e);
	u->read = r >= 0;
	return r;
}

int unix_checkpoint_network(struct checkpoint *c, struct error *e)
{
	struct unix_checkpoint *u = NULL;
	bool first = !c->files->unix_sockets || !c->files->unix_sockets->read;
	int r = get_table(c, &u, e);

	return r < 0 || first ? r : unix_table_read(&u->table, e);
}

static bool is_stream(const Reprise__UnixSocket *m)
{
	return m->socket->type != SOCK_DGRAM;
}

/* Descriptors in its queue are compared with those of all tables, so these come first. */
static int save_queue(struct checkpoint *c, struct unix_checkpoint *u, const struct file_seen *f,
		      Reprise__UnixSocket *m, struct scratch *scratch, struct error *e)
{
	uint64_t carried = 0;
	struct unix_carrier *x;

	/* net/unix/af_unix.c, unix_show_fdinfo() */
	ignore(proc_field_u64(f->fdinfo, "scm_fds", 10, &carried), "then there are none");
	if (!carried)
		return c->checking ? 0 : unix_queue_save(c, f->entry, f->local, 0, m, scratch, e);
	x = vec_push(&u->carriers);
	if (!x)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the Unix sockets");
	x->entry = f->entry;
	x->carried = carried;
	x->fd = fcntl(f->local, F_DUPFD_CLOEXEC, 3);
	if (x->fd < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot keep a descriptor of it");
	return 0;
}

static int look_at_connection(const struct file_seen *f, const struct unix_info *info,
			      struct unix_seen *seen, Reprise__UnixSocket *m, struct error *e)
{
	struct pollfd p = {.fd = f->local};
	int queued = 0;
	bool failed;

	seen->info = info;
	seen->has_peer = info->has_peer;
	seen->peer = info->peer;
	/* Polling does not take the error away, SO_ERROR would. */
	failed = poll(&p, 1, 0) > 0 && (p.revents & POLLERR);
	m->reset = is_stream(m) && failed;
	seen->pending_data = ioctl(f->local, SIOCOUTQ, &queued) == 0 && queued;
	/* unix_dgram_disconnected() */
	if (failed && !is_stream(m))
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "its peer has left it with data unread, and it has an error that "
				 "has not been read; try again");
	return 0;
}

/* SO_INQ (6.17) can be set and not be read. */
static int save_inq(struct checkpoint *c, const struct file_seen *f, Reprise__UnixSocket *m,
		    struct error *e)
{
	struct kernel_memory *k = NULL;
	int size = 0, offset;
	uint8_t is = 0;

	if (m->socket->type != SOCK_STREAM || kernel_sock_memory(c, &k) < 0 || c->checking)
		return 0;
	offset = kernel_offset_size(k, "unix_sock", "recvmsg_inq", &size);
	if (offset == -ENOENT)
		return 0;
	if (size != sizeof(is) || kernel_of_sock(k, f->local, offset, &is, sizeof(is)) < 0)
		return error_set(e, -EOPNOTSUPP, E_KERNEL_TOO_OLD,
				 "this kernel does not tell whether SO_INQ is set");
	m->inq = is != 0;
	return 0;
}

static int unix_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			   struct scratch *scratch, struct error *e)
{
	Reprise__UnixSocket *m =
		scratch_message(scratch, Reprise__UnixSocket, reprise__unix_socket__init);
	struct unix_seen *seen = scratch_alloc(scratch, sizeof(*seen));
	const struct unix_info *info;
	struct unix_checkpoint *u = NULL;
	int r;

	if (!m || !seen)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a socket");
	msg->unix_socket = m;
	f->entry->private = (uint64_t)(uintptr_t)seen;
	r = get_table(c, &u, e);
	if (r >= 0)
		r = socket_checkpoint(c, f, &m->socket, scratch, e);
	if (r < 0)
		return r;
	info = unix_table_find(&u->table, f->st.st_ino);
	if (!info)
		return error_set(e, -ENOENT, E_TASK_NAMESPACE,
				 "it is not among the Unix sockets of this network namespace");
	r = unix_cred_save(f->local, m, scratch, e);
	if (r < 0)
		return r;
	r = save_inq(c, f, m, e);
	if (r < 0)
		return r;
	m->shutdown = info->shutdown;
	m->state = info->state == TCP_LISTEN ? UNIX_LISTENING : UNIX_UNCONNECTED;
	m->backlog = info->state == TCP_LISTEN ? (int32_t)info->wqueue : 0;
	r = look_at_connection(f, info, seen, m, e);
	if (r >= 0)
		r = unix_name_save(c, f, info, m, scratch, e);
	if (r >= 0 && m->state != UNIX_LISTENING)
		r = save_queue(c, u, f, m, scratch, e);
	return r;
}

/* ---- when all tables have been seen ---- */

static int unix_checkpoint_queues(struct checkpoint *c, struct error *e)
{
	struct unix_checkpoint *u = c->files->unix_sockets;
	int r = 0;

	/* More may join while this goes on: sockets that are in flight. */
	for (size_t i = 0; u && i < u->carriers.n && r >= 0; i++) {
		struct unix_carrier x = u->carriers.v[i];
		struct file_entry *f = x.entry;

		if (c->checking)
			r = unix_queue_look(c, f, x.fd, x.carried, e);
		else
			r = unix_queue_save(c, f, x.fd, x.carried, f->msg->unix_socket,
					    &c->files->scratch, e);
		close_fd(&u->carriers.v[i].fd);
		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, f), e);
	}
	return r;
}

/* ---- when all have been seen ---- */

static int compare_ino(const void *a, const void *b)
{
	const struct file_entry *x = *(struct file_entry *const *)a,
				*y = *(struct file_entry *const *)b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static int index_sockets(struct checkpoint *c, struct unix_checkpoint *u, struct error *e)
{
	vec_for_each (f, &c->files->files) {
		struct file_entry **slot;

		if ((*f)->ops != &unix_file_ops)
			continue;
		slot = vec_push(&u->by_ino);
		if (!slot)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the Unix sockets");
		*slot = *f;
	}
	if (u->by_ino.n)
		qsort(u->by_ino.v, u->by_ino.n, sizeof(*u->by_ino.v), compare_ino);
	return 0;
}

static struct file_entry *by_ino(const struct unix_checkpoint *u, uint64_t ino)
{
	struct file_entry key = {.ino = ino}, *keyp = &key, **found;

	if (!u->by_ino.n || !ino)
		return NULL;
	found = bsearch(&keyp, u->by_ino.v, u->by_ino.n, sizeof(keyp), compare_ino);
	return found ? *found : NULL;
}

static const struct unix_seen *seen_of(const struct file_entry *f)
{
	return (const struct unix_seen *)(uintptr_t)f->private;
}

/* Who waits there, by id: 0 has gone, OUTSIDE is not in the tree. Returns whether anybody may have
 * sent something. */
#define OUTSIDE UINT64_MAX

static int list_clients(struct checkpoint *c, const struct unix_checkpoint *u,
			const struct unix_info *info, Reprise__UnixSocket *m, struct error *e)
{
	int hidden = 0;

	for (uint32_t i = 0; i < info->nclients; i++) {
		struct file_entry *client = by_ino(u, info->clients[i]);

		if (!client && info->clients[i]) {
			if (!c->files->unseen && c->peers == PEERS_REFUSE)
				return error_set(
					e, -EBUSY, E_FILE_OUTSIDE,
					"a client outside the tree waits there to be accepted; try "
					"again, or see --unix");
			m->pending[m->n_pending++] = OUTSIDE;
			continue;
		}
		/* One that has closed its socket may have sent something, too. */
		hidden |= !client || seen_of(client)->pending_data;
		if (client)
			client->msg->unix_socket->state = UNIX_PENDING;
		m->pending[m->n_pending++] = client ? client->id : 0;
	}
	return hidden;
}

static void drop_outside(Reprise__UnixSocket *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_pending; i++) {
		if (m->pending[i] == OUTSIDE)
			continue;
		m->pending[n] = m->pending[i];
		if (m->n_waiting)
			m->waiting[n] = m->waiting[i];
		n++;
	}
	m->n_pending = n;
	m->n_waiting = m->n_waiting ? n : 0;
}

/* Marks those that wait for a listener of the tree, so that they are not taken for orphans. */
static int resolve_listener(struct checkpoint *c, const struct unix_checkpoint *u,
			    struct file_entry *f, struct error *e)
{
	const struct unix_info *info = seen_of(f)->info;
	Reprise__UnixSocket *m = f->msg->unix_socket;
	int r;

	m->pending = scratch_alloc(&c->files->scratch, (info->nclients + 1) * sizeof(uint64_t));
	if (!m->pending)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a backlog");
	r = list_clients(c, u, info, m, e);
	if (r > 0)
		r = unix_waiting_save(c, f, info->nclients, m, &c->files->scratch, e);
	drop_outside(m);
	return r;
}

/* A name that means the same wherever we are. */
static bool has_peer_name(const Reprise__UnixSocket *m)
{
	return m->peer_name.len > 1 && (!m->peer_name.data[0] || m->peer_name.data[0] == '/');
}

static int refuse_peer(const Reprise__UnixSocket *m, struct error *e)
{
	if (m->peer_name.len > 1)
		return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
				 "the Unix socket is connected to %s%.*s, outside the tree (see "
				 "--unix)",
				 m->peer_name.data[0] ? "" : "@",
				 (int)m->peer_name.len - !m->peer_name.data[0],
				 (const char *)m->peer_name.data + !m->peer_name.data[0]);
	return error_set(e, -EOPNOTSUPP, E_FILE_OUTSIDE,
			 "the other side of this Unix socket is outside the tree (see --unix)");
}

static int peer_outside(struct checkpoint *c, struct file_entry *f, struct error *e)
{
	Reprise__UnixSocket *m = f->msg->unix_socket;

	if (!is_stream(m) && has_peer_name(m)) { /* as good as a name: syslog and the like */
		m->state = UNIX_CONNECTED;
		return 0;
	}
	if (f->msg->standard) {
		f->msg->outside = true;
		return 0;
	}
	if (c->peers == PEERS_REFUSE)
		return refuse_peer(m, e);
	m->state = UNIX_PEER_GONE;
	if (c->peers == PEERS_DISCONNECT || !has_peer_name(m))
		return 0;
	if (m->n_queue || m->mark)
		return error_set(
			e, -EBUSY, E_FILE_STATE,
			"it holds data from outside the tree that has not been read yet, and "
			"cannot be connected again; try again, or use --unix=disconnect");
	m->state = UNIX_RECONNECT;
	return 0;
}

static int resolve_peer(struct checkpoint *c, const struct unix_checkpoint *u, struct file_entry *f,
			struct error *e)
{
	const struct unix_seen *seen = seen_of(f);
	Reprise__UnixSocket *m = f->msg->unix_socket;
	struct file_entry *peer = by_ino(u, seen->peer);

	if (!seen->has_peer || m->state == UNIX_PENDING || m->state == UNIX_LISTENING)
		return 0;
	if (peer) {
		m->state = UNIX_CONNECTED;
		m->peer = peer->id;
		if (!is_stream(m) && seen_of(peer)->peer != f->ino)
			peer->msg->unix_socket->partner = f->id;
		return 0;
	}
	if (!seen->peer && (!is_stream(m) || m->shutdown == 3)) {
		m->state = UNIX_PEER_GONE;
		return 0;
	}
	return c->files->unseen ? 0 : peer_outside(c, f, e);
}

static int unix_checkpoint_all(struct checkpoint *c, struct error *e)
{
	struct unix_checkpoint *u = c->files->unix_sockets;
	int r;

	if (!u)
		return 0;
	r = index_sockets(c, u, e);
	for (size_t i = 0; i < u->by_ino.n && r >= 0; i++) {
		struct file_entry *f = u->by_ino.v[i];

		if (f->msg->unix_socket->state != UNIX_LISTENING)
			continue;
		r = resolve_listener(c, u, f, e);
		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, f), e);
	}
	for (size_t i = 0; i < u->by_ino.n && r >= 0; i++) {
		r = resolve_peer(c, u, u->by_ino.v[i], e);
		if (r < 0)
			r = checkpoint_refuse(c, file_error_object(e, r, u->by_ino.v[i]), e);
	}
	return r;
}

static void unix_checkpoint_end(struct checkpoint *c)
{
	struct unix_checkpoint *u = c->files->unix_sockets;

	if (!u)
		return;
	unix_table_free(&u->table);
	vec_free(&u->by_ino);
	vec_for_each (x, &u->carriers)
		close_fd(&x->fd);
	vec_free(&u->carriers);
	unix_kernel_free(u->kernel);
	free(u);
	c->files->unix_sockets = NULL;
}

static void unix_describe(const Reprise__File *msg, char *buf, size_t size)
{
	static const char *const states[] = {
		"?",	     "not connected",	     "listening",	 "connected",
		"peer gone", "waits to be accepted", "is connected anew"};
	const Reprise__UnixSocket *m = msg->unix_socket;
	bool abstract = m && m->name.len && !m->name.data[0];
	size_t carried = 0;

	if (!m || !m->socket) {
		snprintf(buf, size, "?");
		return;
	}
	for (size_t i = 0; i < m->n_queue; i++)
		carried += m->queue[i]->n_files;
	snprintf(buf, size, "%s, %s%s%s%.*s, %zu queued, %zu descriptors in flight",
		 m->socket->type == SOCK_STREAM	 ? "stream"
		 : m->socket->type == SOCK_DGRAM ? "datagram"
						 : "seqpacket",
		 states[m->state <= UNIX_RECONNECT ? m->state : 0], m->name.len ? ", " : "",
		 abstract ? "@" : "", (int)m->name.len - abstract,
		 m->name.len ? (const char *)m->name.data + abstract : "", m->n_queue, carried);
}

const struct file_ops unix_file_ops = {
	.kind = FILE_UNIX,
	.name = "unix socket",
	.support =
		"stream, datagram and seqpacket; pairs, connected, listening with backlog (for "
		"root also if clients have sent data or gone before they were accepted), bound, "
		"shut down, peer gone; queued data with its credentials, descriptors in flight and "
		"out-of-band byte; connected to the outside: refused, disconnected or connected "
		"anew (`--unix`)",
	.match = unix_match,
	.checkpoint = unix_checkpoint,
	.checkpoint_queues = unix_checkpoint_queues,
	.checkpoint_all = unix_checkpoint_all,
	.checkpoint_end = unix_checkpoint_end,
	.validate = unix_validate,
	.restart = unix_restart_open,
	.after_tasks = true, /* as late as can be: the name may be in use till then */
	.finish = unix_restart_finish,
	.restart_all = unix_restart_all,
	.restart_end = unix_restart_end,
	.describe = unix_describe,
};
