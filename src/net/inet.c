/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Internet sockets inside the host's network: UDP, UDP-Lite, ICMP and raw sockets, and what they
 * have in common with TCP (inet_tcp.c).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/patience.h"
#include "core/procfs.h"
#include "fs/bpf_attached.h"
#include "net/inet.h"
#include "net/inet_chosen.h"
#include "net/inet_diag.h"
#include "net/inet_hidden.h"
#include "net/inet_numbers.h"
#include "net/inet_queue.h"
#include "net/multicast.h"
#include "net/raw_queue.h"
#include "net/reuseport.h"
#include "net/socket.h"
#include "net/socket_kinds.h"

#define UNSENT_MS 100 /* the application stands still meanwhile */

static bool inet_match(const struct file_seen *f)
{
	int family = socket_family(f);

	return family == AF_INET || family == AF_INET6;
}

void inet_format(const ProtobufCBinaryData *a, char *buf, size_t size)
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

void inet_drop_option(Reprise__Socket *m, int level, int name)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_options; i++)
		if (m->options[i]->level != level || m->options[i]->name != name)
			m->options[n++] = m->options[i];
	m->n_options = n;
}

/* Corked data are of no datagram yet. What has been sent needs a moment to leave. */
static int refuse_unsent(int fd, struct error *e)
{
	int unsent = 0;

	for (int i = 0; i < UNSENT_MS; i++) {
		if (ioctl(fd, SIOCOUTQ, &unsent) < 0)
			return socket_unsure(errno) ? error_errno(e, -errno, E_FILE_STATE,
								  "cannot ask what is unsent")
						    : 0;
		if (!unsent)
			return 0;
		patience_pause();
	}
	return error_set(e, -EBUSY, E_FILE_STATE,
			 "it holds data that have not been sent yet (UDP_CORK, MSG_MORE, or a slow "
			 "device); try again");
}

/*
 * Who routes groups (MRT_INIT) is known to the kernel alone, that somebody does in this network
 * namespace to everybody. It takes a socket of one protocol (ip_mroute_setsockopt()).
 */
static int refuse_router(struct checkpoint *c, const struct file_seen *f, const Reprise__Socket *m,
			 struct error *e)
{
	const bool v6 = m->family == AF_INET6;
	_cleanup_(free_ptr) char *text = NULL;
	struct error ignored = {};
	int alert = 0;
	socklen_t len = sizeof(alert);

	if (m->type != SOCK_RAW)
		return 0;
	if (v6 && getsockopt(f->local, IPPROTO_IPV6, IPV6_ROUTER_ALERT, &alert, &len) == 0 && alert)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"it takes packets for routers (IPV6_ROUTER_ALERT), and nobody tells "
			"which");
	if (m->protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_IGMP) &&
	    procfs_read(c->proc_fd, &text, &ignored, "sys/net/ipv%d/conf/all/mc_forwarding",
			v6 ? 6 : 4) > 0 &&
	    text[0] != '0')
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "multicast is routed here (MRT_INIT), perhaps by it, which cannot "
				 "be read");
	return 0;
}

static int save_datagrams(struct checkpoint *c, const struct file_seen *f, Reprise__InetSocket *m,
			  struct scratch *s, struct error *e)
{
	const struct inet_info *info = NULL;
	int encap = 0, r;

	m->state = m->remote.len ? INET_CONNECTED : INET_UNCONNECTED;
	r = refuse_unsent(f->local, e);
	if (r < 0)
		return r;
	if (!inet_is_udp(m->socket)) {
		r = refuse_router(c, f, m->socket, e);
		return r < 0 ? r : raw_queue_save(c, f->local, m, s, e);
	}
	r = socket_number(f->local, IPPROTO_UDP, UDP_ENCAP, &encap, e);
	if (r < 0)
		return r;
	if (encap)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "it is the end of a tunnel (UDP_ENCAP %d)", encap);
	r = inet_queue_save(c, f->entry, f->local, m, s, e);
	if (r >= 0)
		r = inet_chosen_save(c, f->local, m, s, e);
	if (r >= 0)
		r = inet_diag_find(c, m->socket->family, m->socket->protocol, f->st.st_ino, &info,
				   e);
	/* poll() tells of both directions, and of receiving alone. */
	if (info)
		m->shutdown = info->shutdown;
	return r;
}

static const char *protocol_name(int protocol)
{
	switch (protocol) {
	case IPPROTO_DCCP:
		return " (DCCP)";
	case IPPROTO_SCTP:
		return " (SCTP)";
	case 115:
		return " (L2TP)";
	case 256:
		return " (SMC)";
	default:
		return "";
	}
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
		r = reuseport_save(c, f, m, scratch, e);
	if (r >= 0)
		r = multicast_save(c, f->local, m, scratch, e);
	if (r >= 0)
		r = inet_hidden_save(c, f->local, m, scratch, e);
	if (r >= 0)
		r = socket_address(f->local, getsockname, &m->local, scratch, e);
	if (r >= 0)
		r = socket_address(f->local, getpeername, &m->remote, scratch, e);
	if (r < 0)
		return r;
	if (inet_is_tcp(m->socket))
		return inet_tcp_save(c, f, m, scratch, e);
	if (m->socket->type != SOCK_RAW && !inet_is_udp(m->socket) && !inet_is_ping(m->socket))
		return error_set(e, -EOPNOTSUPP, E_FILE_KIND,
				 "internet sockets of protocol %d%s cannot be saved",
				 m->socket->protocol, protocol_name(m->socket->protocol));
	return save_datagrams(c, f, m, scratch, e);
}

static int inet_checkpoint_all(struct checkpoint *c, struct error *e)
{
	int r = reuseport_save_all(c, &inet_file_ops, e);

	return r < 0 ? r : inet_connecting_check(c, e);
}

static void inet_checkpoint_end(struct checkpoint *c)
{
	inet_diag_end(c);
	multicast_checkpoint_end(c);
	inet_tcp_checkpoint_end(c);
	inet_connecting_end(c);
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
	    m->state < INET_UNCONNECTED || m->state > INET_REFUSED ||
	    (inet_tcp_is_over(m) && !inet_is_tcp(m->socket)) || m->shutdown > 3)
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an improper internet socket");
	res = socket_validate(m->socket, m->socket->family, e);
	if (res >= 0)
		res = multicast_validate(m, e);
	if (res >= 0)
		res = inet_hidden_validate(m, e);
	if (res >= 0)
		res = reuseport_validate(m, e);
	if (res >= 0)
		res = inet_queue_validate(m, e);
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

/* The address of a container may be another one now, and so may that of the host. */
static void exchange(const struct restart *r, struct sockaddr_storage *a)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)a;
	uint32_t *address = a->ss_family == AF_INET ? &((struct sockaddr_in *)a)->sin_addr.s_addr
						    : &in6->sin6_addr.s6_addr32[3];

	if (a->ss_family == AF_INET6 && memcmp(&in6->sin6_addr, mapped, sizeof(mapped)) != 0)
		return;
	vec_for_each (one, &r->addresses)
		if (*address == one->from) {
			*address = one->to;
			break;
		}
}

static const struct sockaddr *address_now(const struct restart *r, const ProtobufCBinaryData *saved,
					  struct sockaddr_storage *a)
{
	memcpy(a, saved->data, saved->len);
	exchange(r, a);
	return (const struct sockaddr *)a;
}

static int bind_local(struct restart *r, int fd, const Reprise__InetSocket *m, struct error *e)
{
	struct sockaddr_storage a;
	char text[80];

	if (!is_bound(&m->local, m->socket))
		return 0;
	address_now(r, &m->local, &a);
	do
		if (bind(fd, (const struct sockaddr *)&a, (socklen_t)m->local.len) == 0)
			return 0;
	while (errno == EADDRINUSE && files_restart_patience(r));
	inet_format(&m->local, text, sizeof(text));
	if (errno == EADDRINUSE)
		return error_set(e, -EADDRINUSE, E_RESTORE,
				 "the address %s is in use by another program (the original, if it "
				 "still runs)",
				 text);
	return error_errno(e, -errno, E_RESTORE, "cannot bind a socket to %s", text);
}

/* With an address that nobody has bound: 1 if it has been connected. */
static int connect_chosen(struct restart *r, int fd, const Reprise__InetSocket *m)
{
	struct sockaddr_storage local, remote;
	int res;

	if (m->state != INET_CONNECTED || !m->local.len)
		return 0;
	address_now(r, &m->local, &local);
	address_now(r, &m->remote, &remote);
	do
		res = inet_chosen_restore(fd, m, (const struct sockaddr *)&local,
					  (const struct sockaddr *)&remote);
	while (res == -EADDRINUSE && files_restart_patience(r));
	return res == -EADDRINUSE ? 0 : res; /* bind_local() says it better */
}

static int set_state(const struct restart *r, int fd, const Reprise__InetSocket *m, struct error *e)
{
	struct sockaddr_storage a;
	char text[80];

	if (m->state == INET_LISTENING && listen(fd, m->backlog) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot listen");
	if (m->state == INET_CONNECTED &&
	    connect(fd, address_now(r, &m->remote, &a), (socklen_t)m->remote.len) < 0) {
		inet_format(&m->remote, text, sizeof(text));
		return error_errno(e, -errno, E_RESTORE, "cannot connect a socket to %s", text);
	}
	return 0;
}

/* A socket of the tree from which datagrams of this address come, -1 if there is none. */
static int find_address(void *arg, const ProtobufCBinaryData *address)
{
	const struct sockaddr_in *wanted = (const struct sockaddr_in *)address->data;
	struct restart *r = arg;

	vec_for_each (f, &r->files->files) {
		const Reprise__InetSocket *m = f->msg->inet;
		const struct sockaddr_in *is;

		if (f->fd < 0 || !m || !m->local.len || !inet_is_udp(m->socket))
			continue;
		is = (const struct sockaddr_in *)m->local.data;
		/* The rest of the address is told with each datagram. */
		if (is->sin_family == wanted->sin_family && is->sin_port == wanted->sin_port)
			return f->fd;
	}
	return -1;
}

/* On a socket without a peer it has an effect, too, although it fails (inet_shutdown()). */
static int set_shutdown(int fd, const Reprise__InetSocket *m, struct error *e)
{
	static const int how[] = {0, SHUT_RD, SHUT_WR, SHUT_RDWR};

	if (m->shutdown && shutdown(fd, how[m->shutdown]) < 0 && errno != ENOTCONN)
		return error_errno(e, -errno, E_RESTORE, "cannot shut down a socket");
	return 0;
}

/* Before it has a name, a filter or options. */
static int fill_queue(struct restart *r, int fd, const Reprise__InetSocket *m, struct error *e)
{
	int res = 0;

	if (m->socket->type == SOCK_RAW) {
		res = raw_queue_shut(fd, m, e);
		return res < 0 ? res : raw_queue_fill(fd, m, e);
	}
	return inet_is_ping(m->socket) ? 0 : inet_queue_fill(fd, m, find_address, r, e);
}

/* Its address, and whether it listens or is connected. */
static int set_place(struct restart *r, int fd, const Reprise__InetSocket *m, struct error *e)
{
	int res = connect_chosen(r, fd, m);

	if (res)
		return res < 0 ? error_errno(e, res, E_RESTORE, "cannot connect a socket") : 0;
	res = bind_local(r, fd, m, e);
	/* Answers to a ping find the socket by its number. */
	if (res >= 0 && inet_is_ping(m->socket))
		res = raw_queue_fill(fd, m, e);
	return res < 0 ? res : set_state(r, fd, m, e);
}

static int restart_open(struct restart *r, const Reprise__InetSocket *m, int *fd, struct error *e)
{
	int res = socket_make(r, m->socket, fd, e);

	if (res >= 0)
		res = inet_numbers_restore(*fd, m, e);
	if (res >= 0)
		res = fill_queue(r, *fd, m, e);
	if (res >= 0)
		res = inet_refusal_make(*fd, m, e);
	if (res >= 0)
		res = socket_set_options(*fd, m->socket, e);
	if (res >= 0)
		res = bpf_attached_restore(r, *fd, m->socket, e);
	if (res >= 0)
		res = multicast_restore(*fd, m, e);
	if (res >= 0)
		res = inet_hidden_restore(*fd, m, e);
	if (res >= 0)
		res = set_place(r, *fd, m, e);
	if (res >= 0)
		res = reuseport_restore(r, *fd, m, e);
	if (res >= 0)
		res = raw_queue_unshut(*fd, m, e);
	if (res >= 0)
		res = socket_settle(*fd, m->socket, e);
	return res < 0 ? res : set_shutdown(*fd, m, e);
}

/* Even a TCP socket can be a member; it only has no use for it. */
static int restart_over(struct restart *r, const Reprise__InetSocket *m, int *fd, struct error *e)
{
	int res = inet_tcp_make_over(r, m, fd, e);

	return res < 0 ? res : multicast_restore(*fd, m, e);
}

static int inet_restart(struct restart *r, uint64_t id, const Reprise__File *msg, int *ret_fd,
			struct error *e)
{
	const Reprise__InetSocket *m = msg->inet;
	_cleanup_(close_fd) int fd = -EBADF;
	int res;

	if (inet_tcp_is_over(m))
		res = restart_over(r, m, &fd, e);
	else
		res = restart_open(r, m, &fd, e);
	if (res < 0)
		return res;
	*ret_fd = take_fd(&fd);
	return 0;
}

static void inet_describe(const Reprise__File *msg, char *buf, size_t size)
{
	static const char *const states[] = {"?",      "not connected", "listening", "connected",
					     "closed", "reset",		"refused"};
	const Reprise__InetSocket *m = msg->inet;
	char local[80] = "-", remote[80] = "-";

	if (!m || !m->socket) {
		snprintf(buf, size, "?");
		return;
	}
	inet_format(&m->local, local, sizeof(local));
	inet_format(&m->remote, remote, sizeof(remote));
	snprintf(buf, size, "%s %s, local %s, remote %s, %zu %s unread",
		 m->socket->protocol == IPPROTO_MPTCP ? "MPTCP"
		 : inet_is_tcp(m->socket)	      ? "TCP"
		 : m->socket->type == SOCK_DGRAM      ? "UDP"
						      : "raw",
		 states[m->state <= INET_REFUSED ? m->state : 0], local, remote,
		 m->unread.len ?: m->n_queue, inet_is_tcp(m->socket) ? "bytes" : "datagrams");
}

const struct file_ops inet_file_ops = {
	.kind = FILE_INET,
	.name = "internet socket",
	.support =
		"TCP (MPTCP, too) that listens, is not connected or was closed; established TCP comes back closed "
		"(`--tcp=closed`), or is refused; UDP and UDP-Lite with queued datagrams and their "
		"senders; ICMP and raw sockets with what they have not read; options, filters and multicast groups",
	.match = inet_match,
	.checkpoint = inet_checkpoint,
	.checkpoint_all = inet_checkpoint_all,
	.checkpoint_end = inet_checkpoint_end,
	.validate = inet_validate,
	.restart = inet_restart,
	.after_tasks = true, /* as late as can be: the port may be in use till then */
	.describe = inet_describe,
};
