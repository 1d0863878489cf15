/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Internet sockets inside the host's network: TCP that listens, is not
 * connected yet or not any more; UDP, UDP-Lite, ICMP and raw sockets.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/inet_closed.h"
#include "net/multicast.h"
#include "net/socket.h"
#include "net/socket_kinds.h"

enum inet_state { /* numbers stand in images: for ever */
		  INET_UNCONNECTED = 1,
		  INET_LISTENING = 2,
		  INET_CONNECTED = 3, /* datagrams */
		  INET_CLOSED = 4,    /* TCP: was connected, has seen the end */
};

static bool is_tcp(const Reprise__Socket *m)
{
	return m->type == SOCK_STREAM && m->protocol == IPPROTO_TCP;
}

static bool inet_match(const struct file_seen *f)
{
	int family = socket_family(f);

	return family == AF_INET || family == AF_INET6;
}

static void format_address(const ProtobufCBinaryData *a, char *buf, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";
	const struct sockaddr_in *in = (const struct sockaddr_in *)a->data;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)a->data;

	snprintf(buf, size, "-");
	if (a->len >= sizeof(*in) && in->sin_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(buf, size, "%s:%u", host, ntohs(in->sin_port));
	} else if (a->len >= sizeof(*in6) && in6->sin6_family == AF_INET6) {
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(buf, size, "[%s]:%u", host, ntohs(in6->sin6_port));
	}
}

static const char *tcp_state_name(int state)
{
	static const char *const names[] = {
		"?",	   "established", "connecting",	 "connecting", "closing",   "closing",
		"closing", "closed",	  "half-closed", "closing",    "listening", "closing"};

	return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

/* A socket that was never connected has nothing to read; one whose connection has ended reads the
 * end of it (tcp_poll()). */
static bool has_ended(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};

	return poll(&p, 1, 0) > 0 && (p.revents & POLLRDHUP);
}

static int save_listener(const struct tcp_info *info, Reprise__InetSocket *m, struct error *e)
{
	m->state = INET_LISTENING;
	/* Of a listener these two are its queue and its backlog (tcp_get_info()). */
	m->backlog = (int32_t)info->tcpi_sacked;
	if (info->tcpi_unacked)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "%u connections wait there to be accepted; try again",
				 info->tcpi_unacked);
	return 0;
}

static int save_tcp(const struct file_seen *f, Reprise__InetSocket *m, struct error *e)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);
	char local[80], remote[80];
	int queued = 0;

	if (getsockopt(f->local, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return error_errno(e, -errno, E_SYSTEM, "TCP_INFO");
	if (info.tcpi_state == TCP_LISTEN)
		return save_listener(&info, m, e);
	if (info.tcpi_state != TCP_CLOSE) {
		format_address(&m->local, local, sizeof(local));
		format_address(&m->remote, remote, sizeof(remote));
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"TCP connection %s to %s is %s, and this version saves none; close "
			"it before the checkpoint",
			local, remote, tcp_state_name(info.tcpi_state));
	}
	m->state = has_ended(f->local) ? INET_CLOSED : INET_UNCONNECTED;
	if (m->state == INET_CLOSED && ioctl(f->local, FIONREAD, &queued) == 0 && queued)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "a closed TCP connection holds %d bytes that have not been read",
				 queued);
	return 0;
}

static int save_datagrams(const struct file_seen *f, Reprise__InetSocket *m, struct error *e)
{
	char byte;

	m->state = m->remote.len ? INET_CONNECTED : INET_UNCONNECTED;
	if (recv(f->local, &byte, 1, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC) < 0)
		return 0;
	return error_set(e, -EBUSY, E_FILE_STATE,
			 "it holds datagrams that have not been read yet; try again");
}

static int inet_checkpoint(struct checkpoint *c, struct file_seen *f, Reprise__File *msg,
			   struct scratch *scratch, struct error *e)
{
	Reprise__InetSocket *m =
		scratch_message(scratch, Reprise__InetSocket, reprise__inet_socket__init);
	int r;

	if (!m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a socket");
	msg->inet = m;
	r = socket_checkpoint(c, f, &m->socket, scratch, e);
	if (r >= 0)
		r = multicast_save(c, f->local, m, scratch, e);
	if (r >= 0)
		r = socket_address(f->local, getsockname, &m->local, scratch, e);
	if (r >= 0)
		r = socket_address(f->local, getpeername, &m->remote, scratch, e);
	if (r < 0)
		return r;
	if (is_tcp(m->socket))
		return save_tcp(f, m, e);
	if (m->socket->type == SOCK_STREAM || m->socket->type == SOCK_SEQPACKET)
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND, "protocol %d cannot be saved",
				 m->socket->protocol);
	return save_datagrams(f, m, e);
}

/* ---- restart ---- */

static int check_address(const ProtobufCBinaryData *a, int family, struct error *e)
{
	size_t want = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);

	if (!a->len)
		return 0;
	if (a->len != want || ((const struct sockaddr *)a->data)->sa_family != family)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper address of a socket");
	return 0;
}

static int inet_validate(const struct restart *r, const Reprise__File *msg, struct error *e)
{
	const Reprise__InetSocket *m = msg->inet;
	int res;

	if (!m || !m->socket || (m->socket->family != AF_INET && m->socket->family != AF_INET6) ||
	    m->state < INET_UNCONNECTED || m->state > INET_CLOSED)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper internet socket");
	res = socket_validate(m->socket, m->socket->family, e);
	if (res >= 0)
		res = multicast_validate(m, e);
	if (res >= 0)
		res = check_address(&m->local, m->socket->family, e);
	if (res >= 0)
		res = check_address(&m->remote, m->socket->family, e);
	return res;
}

static bool is_bound(const ProtobufCBinaryData *a, const Reprise__Socket *m)
{
	static const struct in6_addr any6 = IN6ADDR_ANY_INIT;
	const struct sockaddr_in *in = (const struct sockaddr_in *)a->data;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)a->data;

	if (!a->len)
		return false;
	/* A raw socket shows its protocol in place of a port. */
	if (m->family == AF_INET)
		return (in->sin_port && m->type != SOCK_RAW) || in->sin_addr.s_addr;
	return (in6->sin6_port && m->type != SOCK_RAW) ||
	       memcmp(&in6->sin6_addr, &any6, sizeof(any6));
}

static int bind_local(struct restart *r, int fd, const Reprise__InetSocket *m, struct error *e)
{
	char text[80];

	if (!is_bound(&m->local, m->socket))
		return 0;
	do
		if (bind(fd, (const struct sockaddr *)m->local.data, (socklen_t)m->local.len) == 0)
			return 0;
	while (errno == EADDRINUSE && files_restart_patience(r));
	format_address(&m->local, text, sizeof(text));
	if (errno == EADDRINUSE)
		return error_set(e, -EADDRINUSE, E_RESTORE,
				 "the address %s is in use by another program (the original, if it "
				 "still runs)",
				 text);
	return error_errno(e, -errno, E_RESTORE, "cannot bind a socket to %s", text);
}

static int set_state(int fd, const Reprise__InetSocket *m, struct error *e)
{
	char text[80];

	if (m->state == INET_LISTENING && listen(fd, m->backlog) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot listen");
	if (m->state == INET_CONNECTED &&
	    connect(fd, (const struct sockaddr *)m->remote.data, (socklen_t)m->remote.len) < 0) {
		format_address(&m->remote, text, sizeof(text));
		return error_errno(e, -errno, E_RESTORE, "cannot connect a socket to %s", text);
	}
	return 0;
}

static int restart_open(struct restart *r, const Reprise__InetSocket *m, int *fd, struct error *e)
{
	int res = socket_make(m->socket, fd, e);

	if (res >= 0)
		res = socket_set_options(*fd, m->socket, e);
	if (res >= 0)
		res = multicast_restore(*fd, m, e);
	if (res >= 0)
		res = bind_local(r, *fd, m, e);
	if (res >= 0)
		res = set_state(*fd, m, e);
	if (res >= 0)
		res = socket_settle(*fd, m->socket, e);
	return res;
}

/* Even a TCP socket can be a member; it only has no use for it. */
static int restart_closed(const Reprise__InetSocket *m, int *fd, struct error *e)
{
	int res = inet_closed_make(m->socket, fd, e);

	return res < 0 ? res : multicast_restore(*fd, m, e);
}

static int inet_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			struct error *e)
{
	const Reprise__InetSocket *m = msg->inet;
	_cleanup_(close_fd) int fd = -EBADF;
	int res;

	if (m->state == INET_CLOSED)
		res = restart_closed(m, &fd, e);
	else
		res = restart_open(r, m, &fd, e);
	if (res < 0)
		return res;
	*ret_fd = take_fd(&fd);
	return 0;
}

static void inet_describe(const Reprise__File *msg, char *buf, size_t size)
{
	static const char *const states[] = {"?", "not connected", "listening", "connected",
					     "closed"};
	const Reprise__InetSocket *m = msg->inet;
	char local[80] = "-", remote[80] = "-";

	if (!m || !m->socket) {
		snprintf(buf, size, "?");
		return;
	}
	format_address(&m->local, local, sizeof(local));
	format_address(&m->remote, remote, sizeof(remote));
	snprintf(buf, size, "%s %s, local %s, remote %s",
		 is_tcp(m->socket)		 ? "TCP"
		 : m->socket->type == SOCK_DGRAM ? "UDP"
						 : "raw",
		 states[m->state <= INET_CLOSED ? m->state : 0], local, remote);
}

const struct file_ops inet_file_ops = {
	.kind = FILE_INET,
	.name = "internet socket",
	.support =
		"TCP that listens, is not connected or was closed; UDP, UDP-Lite, ICMP and raw "
		"sockets with empty queues; options, filters and multicast groups; established TCP is refused",
	.match = inet_match,
	.checkpoint = inet_checkpoint,
	.checkpoint_end = multicast_checkpoint_end,
	.validate = inet_validate,
	.restart = inet_restart,
	.after_tasks = true, /* as late as can be: the port may be in use till then */
	.describe = inet_describe,
};
