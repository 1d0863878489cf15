/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP sockets. A connection is not saved alive: where that is wanted (--tcp=closed) it comes
 * back closed, as a program finds it when its machine has slept for long. What had been received
 * can still be read. Then comes the end if the other side had closed it, else ECONNRESET.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/patience.h"
#include "fs/bpf_attached.h"
#include "net/inet.h"
#include "net/inet_diag.h"
#include "net/inet_queue.h"
#include "net/kernel_sock.h"
#include "net/loopback.h"
#include "net/socket.h"
#include "net/tcp.h"

#define UNREAD_MAX (64 << 20)
#define MSS_MIN	   88 /* TCP_MIN_MSS */

static const char *state_name(int state)
{
	static const char *const names[] = {
		"?",	   "established", "connecting",	 "connecting", "closing",   "closing",
		"closing", "closed",	  "half-closed", "closing",    "listening", "closing"};

	return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

int inet_tcp_refuse(const Reprise__InetSocket *m, int state, struct error *e)
{
	char local[80], remote[80];

	inet_format(&m->local, local, sizeof(local));
	inet_format(&m->remote, remote, sizeof(remote));
	return error_set(e, -EOPNOTSUPP, E_TCP_CONNECTION, "TCP connection %s to %s is %s", local,
			 remote, state_name(state));
}

/* What sits on top of TCP has state of its own. Each path of MPTCP has "mptcp" there. */
static int refuse_layers(int fd, const Reprise__Socket *m, struct error *e)
{
	char name[16] = "";
	socklen_t len = sizeof(name);
	int repair = 0, r;

	if (m->protocol != IPPROTO_MPTCP && getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &len) == 0 &&
	    len)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "the protocol \"%.15s\" was put on top of it (TCP_ULP)", name);
	r = socket_number(fd, IPPROTO_TCP, TCP_REPAIR, &repair, e);
	if (r < 0)
		return r;
	if (repair)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE, "it is being repaired (TCP_REPAIR)");
	return 0;
}

static int save_listener(struct checkpoint *c, const struct file_seen *f,
			 const struct tcp_info *info, Reprise__InetSocket *m, struct error *e)
{
	const struct inet_info *listed = NULL;
	char local[80];
	int r = inet_diag_find(c, m->socket->family, IPPROTO_TCP, f->st.st_ino, &listed, e);

	if (r < 0)
		return r;
	if (listed && listed->has_keys)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"it has keys for signatures (TCP_MD5SIG), which cannot be restored");
	m->state = INET_LISTENING;
	/* Of a listener these two are its queue and its backlog (tcp_get_info()). */
	m->backlog = (int32_t)info->tcpi_sacked;
	if (!info->tcpi_unacked || c->tcp_closed)
		return 0;
	inet_format(&m->local, local, sizeof(local));
	return error_set(e, -EBUSY, E_TCP_CONNECTION, "%u connections to %s wait to be accepted",
			 info->tcpi_unacked, local);
}

/*
 * Newer kernels (6.9) peek at an offset, if the application has set one: it is set back by the
 * application itself, if we do not live to do it.
 */
static ssize_t peek_from_start(struct checkpoint *c, const struct file_entry *f, int fd,
			       const ProtobufCBinaryData *to, struct error *e)
{
	int original = -1, zero = 0, r, put;
	struct error unused = {};
	struct agent_promise undo = {
		.nr = SYS_setsockopt,
		.args = {(uint64_t)f->fd, SOL_SOCKET, SO_PEEK_OFF, 0, sizeof(int)},
		.value_arg = 3,
	};
	ssize_t n;

	r = socket_number(fd, SOL_SOCKET, SO_PEEK_OFF, &original, e);
	if (r < 0)
		return r;
	undo.value = original;
	if (original < 0)
		return recv(fd, to->data, to->len, MSG_PEEK | MSG_DONTWAIT);
	r = file_promise(c, f, &undo, 1, e);
	if (r < 0)
		return file_absolve(c, f, r, e);
	n = setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero));
	if (n >= 0)
		n = recv(fd, to->data, to->len, MSG_PEEK | MSG_DONTWAIT);
	r = n < 0 ? -errno : 0;
	put = socket_put_back(fd, SO_PEEK_OFF, original, &unused);
	if (r >= 0)
		r = put;
	r = file_absolve(c, f, r, e);
	errno = -r;
	return r < 0 ? -1 : n;
}

/*
 * All that has been received, without taking it. One of MPTCP that is over tells of a byte where
 * there is none (mptcp_inq_hint()), and who looks for it takes the error.
 */
static int save_unread(struct checkpoint *c, const struct file_seen *f, int seen,
		       Reprise__InetSocket *m, struct scratch *s, struct error *e)
{
	bool several = m->socket->protocol == IPPROTO_MPTCP;
	int fd = f->local, queued = 0;
	ssize_t n;

	if (ioctl(fd, FIONREAD, &queued) < 0 && socket_unsure(errno))
		return error_errno(e, -errno, E_FILE_STATE, "cannot ask what is in its queue");
	if (queued <= 0 || (several && !(seen & POLLIN)))
		return 0;
	if (several && queued == 1 && (seen & POLLERR))
		return error_set(e, -EBUSY, E_TCP_CONNECTION,
				 "the connection has failed, and a byte before the error may wait "
				 "to be read");
	if (queued > UNREAD_MAX)
		return error_set(e, -EFBIG, E_FILE_STATE, "it holds %d bytes that were not read",
				 queued);
	if (c->checking)
		return 0;
	m->unread.data = scratch_alloc(s, (size_t)queued);
	if (!m->unread.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for unread data");
	m->unread.len = (size_t)queued;
	n = peek_from_start(c, f->entry, fd, &m->unread, e);
	if (n < 0)
		return error_errno(e, -errno, E_FILE_STATE, "cannot look into its queue");
	m->unread.len = (size_t)n;
	return 0;
}

/* Two errors can be made again. */
static int save_closed(struct checkpoint *c, int fd, int seen, Reprise__InetSocket *m,
		       struct error *e)
{
	if (!(seen & POLLERR)) {
		m->state = seen & POLLRDHUP ? INET_CLOSED : INET_UNCONNECTED;
		return 0;
	}
	m->state = INET_RESET;
	switch (kernel_sock_error(c, fd)) {
	case ECONNREFUSED:
		m->state = INET_REFUSED;
		return 0;
	case ECONNRESET:
		return 0;
	case EPIPE: /* a reset after the end, which reads go on to find */
		m->state = INET_CLOSED;
		break;
	default:
		break;
	}
	return c->tcp_closed ? 0
			     : error_set(e, -EBUSY, E_TCP_CONNECTION,
					 "the connection has failed, and the error waits to be "
					 "read");
}

/* For inet_tcp_abort(). Where this fails the port stays in use for a while. */
static void remember(struct checkpoint *c, int fd)
{
	int copy = c->checking ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	int *slot = copy < 0 ? NULL : vec_push(&c->files->tcp_connections);

	if (slot)
		*slot = copy;
	else
		close_fd(&copy);
}

void inet_tcp_checkpoint_end(struct checkpoint *c)
{
	vec_for_each (fd, &c->files->tcp_connections)
		close_fd(fd);
	vec_free(&c->files->tcp_connections);
}

void inet_tcp_abort(struct checkpoint *c)
{
	const struct linger now = {.l_onoff = 1};

	vec_for_each (fd, &c->files->tcp_connections)
		ignore(setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)),
		       "it ends in an orderly way, later");
	inet_tcp_checkpoint_end(c);
}

static int save_connection(struct checkpoint *c, const struct file_seen *f, int state, int seen,
			   Reprise__InetSocket *m, struct error *e)
{
	if (!c->tcp_closed && state == TCP_SYN_SENT && m->socket->protocol == IPPROTO_TCP) {
		m->state = INET_UNCONNECTED;
		return inet_connecting_add(c, f, e);
	}
	if (!c->tcp_closed)
		return inet_tcp_refuse(m, state, e);
	remember(c, f->local);
	if (state == TCP_SYN_SENT)
		m->state = INET_REFUSED;
	else
		m->state = seen & POLLRDHUP ? INET_CLOSED : INET_RESET;
	return 0;
}

static void drop_options(Reprise__Socket *m)
{
	/* Means something else for what was never connected, and may be too large for a new socket.
	 */
	inet_drop_option(m, IPPROTO_TCP, TCP_MAXSEG);
	/* What accept() puts there nobody can set (tcp_v4_syn_recv_sock(), do_ip_setsockopt()). */
	inet_drop_option(m, IPPROTO_IP, IP_MULTICAST_TTL);
	inet_drop_option(m, IPPROTO_IP, IP_MULTICAST_IF);
	inet_drop_option(m, IPPROTO_IPV6, IPV6_MULTICAST_HOPS);
	inet_drop_option(m, IPPROTO_IPV6, IPV6_MULTICAST_IF);
}

/* Less than anybody may ask for: what the kernel has worked out (IP_OPTIONS make it do so). */
static void drop_small_mss(Reprise__Socket *m)
{
	int mss;

	for (size_t i = 0; i < m->n_options; i++) {
		const Reprise__SocketOption *x = m->options[i];

		if (x->level != IPPROTO_TCP || x->name != TCP_MAXSEG || x->value.len != sizeof(mss))
			continue;
		memcpy(&mss, x->value.data, sizeof(mss));
		if (mss < MSS_MIN) {
			inet_drop_option(m, IPPROTO_TCP, TCP_MAXSEG);
			return;
		}
	}
}

int inet_tcp_save(struct checkpoint *c, const struct file_seen *f, Reprise__InetSocket *m,
		  struct scratch *s, struct error *e)
{
	struct pollfd p = {.fd = f->local, .events = POLLIN | POLLRDHUP};
	struct tcp_info info = {};
	socklen_t len = sizeof(info);
	int r;

	if (getsockopt(f->local, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return error_errno(e, -errno, E_SYSTEM, "TCP_INFO");
	drop_small_mss(m->socket);
	r = refuse_layers(f->local, m->socket, e);
	if (r < 0 || info.tcpi_state == TCP_LISTEN)
		return r < 0 ? r : save_listener(c, f, &info, m, e);
	if (poll(&p, 1, 0) < 0)
		return error_errno(e, -errno, E_SYSTEM, "poll");
	if (info.tcpi_state == TCP_CLOSE)
		r = save_closed(c, f->local, p.revents, m, e);
	else
		r = save_connection(c, f, info.tcpi_state, p.revents, m, e);
	if (r < 0 || !inet_tcp_is_over(m))
		return r;
	drop_options(m->socket);
	return m->state == INET_REFUSED ? 0 : save_unread(c, f, p.revents, m, s, e);
}

/* ---- restart ---- */

bool inet_tcp_is_over(const Reprise__InetSocket *m)
{
	return m->state == INET_CLOSED || m->state == INET_RESET || m->state == INET_REFUSED;
}

static int wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	int r;

	do
		r = poll(&p, 1, PATIENCE_MS);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r == 0 ? -ETIMEDOUT : 0;
}

static int send_all(int peer, const ProtobufCBinaryData *data)
{
	for (size_t done = 0; done < data->len;) {
		ssize_t n = send(peer, data->data + done, data->len - done,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		int r;

		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		if (errno != EAGAIN)
			return -errno;
		r = wait_for(peer, POLLOUT);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Until all of it has arrived: a reset throws away what is still under way. */
static int wait_for_data(int fd, size_t wanted)
{
	int low = wanted > INT32_MAX ? INT32_MAX : (int)wanted, one = 1, queued = 0, r;

	if (!wanted)
		return 0;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof(low)) < 0)
		return -errno;
	r = wait_for(fd, POLLIN);
	if (r >= 0 && (ioctl(fd, FIONREAD, &queued) < 0 || (size_t)queued != wanted))
		r = -ETIMEDOUT;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof(one)) < 0 && r >= 0)
		r = -errno;
	return r;
}

/* With a linger time of zero close() sends a reset: nothing of the connection stays behind in the
 * kernel. */
static int cut(int *peer, int fd)
{
	const struct linger now = {.l_onoff = 1};

	if (setsockopt(*peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) < 0)
		return -errno;
	close_fd(peer);
	return wait_for(fd, 0); /* for POLLHUP: both directions are shut */
}

/*
 * The same for MPTCP, of which a reset leaves no end to be read. Some options can be set when it is
 * closed altogether, which is later than poll() tells (__mptcp_nmpc_sk()).
 */
static int end(int *peer, int fd)
{
	const int off = 0;
	int r;

	close_fd(peer);
	r = wait_for(fd, POLLRDHUP);
	if (r >= 0 && shutdown(fd, SHUT_WR) < 0)
		r = -errno;
	if (r >= 0)
		r = wait_for(fd, 0);
	for (int i = 0; i < PATIENCE_MS && r >= 0; i++) {
		if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off)) == 0)
			return 0;
		patience_pause();
	}
	return r < 0 ? r : -ETIMEDOUT;
}

static int connect_and_cut(int fd, const Reprise__InetSocket *m)
{
	int family = m->socket->family, r, pending;
	_cleanup_(close_fd) int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	_cleanup_(close_fd) int peer = -EBADF;
	struct endpoint at = loopback(family);
	socklen_t len = sizeof(int);

	if (listener < 0 || bind(listener, &at.addr.any, at.len) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, &at.addr.any, &at.len) < 0 ||
	    connect(fd, &at.addr.any, at.len) < 0)
		return -errno;
	peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (peer < 0)
		return -errno;
	r = send_all(peer, &m->unread);
	if (r >= 0)
		r = wait_for_data(fd, m->unread.len);
	if (r >= 0 && m->state == INET_CLOSED && m->socket->protocol == IPPROTO_MPTCP)
		return end(&peer, fd);
	if (r >= 0)
		r = cut(&peer, fd);
	if (r < 0 || m->state == INET_RESET)
		return r;
	/* Without the error there is nothing left but the end. */
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &pending, &len) < 0 ? -errno : 0;
}

/* A port on which nobody listens, because we hold it. */
static int connect_in_vain(int fd, int family)
{
	_cleanup_(close_fd) int holder = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct endpoint at = loopback(family);
	int flags = fcntl(fd, F_GETFL), r;

	if (holder < 0 || bind(holder, &at.addr.any, at.len) < 0 ||
	    getsockname(holder, &at.addr.any, &at.len) < 0 || flags < 0 ||
	    fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	/* One that blocks would take the error. */
	r = connect(fd, &at.addr.any, at.len) < 0 && errno != EINPROGRESS ? -errno : 0;
	if (r >= 0)
		r = wait_for(fd, 0);
	if (fcntl(fd, F_SETFL, flags) < 0 && r >= 0)
		r = -errno;
	return r;
}

int inet_tcp_make_over(struct restart *restart, const Reprise__InetSocket *m, int *ret_fd,
		       struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	int r, was;

	r = socket_make(restart, m->socket, &fd, e);
	if (r < 0)
		return r;
	was = m->unread.len ? buffer_widen(fd, 4 * m->unread.len + 65536) : 0;
	r = m->state == INET_REFUSED ? connect_in_vain(fd, m->socket->family)
				     : connect_and_cut(fd, m);
	if (r < 0)
		return error_errno(e, r, E_RESTORE, "cannot make a closed TCP connection");
	buffer_narrow(fd, was);
	r = socket_set_options(fd, m->socket, e);
	if (r >= 0)
		r = bpf_attached_restore(restart, fd, m->socket, e);
	if (r >= 0)
		r = socket_settle(fd, m->socket, e);
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}
