/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams that wait to be read. They are peeked at, by SO_PEEK_OFF those
 * behind the first one too, and are sent again at restart.
 *
 * The kernel marks a datagram without bytes when it is peeked at, and does not show it at an
 * offset again (__skb_try_recv_from_queue()). So that a later checkpoint does not miss it, the
 * socket is left with another negative SO_PEEK_OFF than -1, which means the same: off.
 */
#include "net/inet_queue.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include "core/cleanup.h"
#include "core/vec.h"
#include "net/inet.h"
#include "net/inet_inject.h"
#include "net/kernel_sock.h"
#include "net/loopback.h"
#include "net/raw_queue.h"
#include "net/socket.h"

#define DATAGRAM_MAX	 65536
#define PEEK_OFF_EMPTY	 (-2) /* empty datagrams were seen, behind the first */
#define REFUSAL_ATTEMPTS 600
#define REFUSAL_WAIT_MS	 50
#define LOOPBACK_INDEX	 1 /* the kernel's LOOPBACK_IFINDEX, in every network namespace */

struct reader {
	const struct checkpoint *c;
	const struct file_entry *entry;
	int fd;
	struct scratch *s;
	VEC(Reprise__InetDatagram *) list;
	bool empty_behind;
	char buf[DATAGRAM_MAX];
};

static int too_odd(const char *what, struct error *e)
{
	return error_set(e, -EBUSY, E_FILE_STATE,
			 "a datagram waits there that cannot be sent again as it was: %s; try "
			 "again when it has been read",
			 what);
}

/* ---- what comes with a datagram ---- */

static int take_destination(Reprise__InetDatagram *d, const void *address, size_t len,
			    unsigned int interface, struct scratch *s, struct error *e)
{
	if (interface != LOOPBACK_INDEX)
		return too_odd("it came by a network interface, which the socket asks for "
			       "(IP_PKTINFO)",
			       e);
	d->destination.len = len;
	d->destination.data = scratch_copy(s, address, len);
	return d->destination.data ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory");
}

static int take_v4(Reprise__InetDatagram *d, const struct cmsghdr *c, struct scratch *s,
		   struct error *e)
{
	struct in_pktinfo info;
	int value;

	switch (c->cmsg_type) {
	case IP_TTL:
		memcpy(&value, CMSG_DATA(c), sizeof(value));
		d->ttl = (uint32_t)value;
		return 0;
	case IP_TOS:
		d->tos = *CMSG_DATA(c);
		return 0;
	case IP_PKTINFO:
		memcpy(&info, CMSG_DATA(c), sizeof(info));
		if (info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr)
			return too_odd("it was sent to a group, or to all", e);
		return take_destination(d, &info.ipi_addr, sizeof(info.ipi_addr),
					(unsigned int)info.ipi_ifindex, s, e);
	default:
		return too_odd("it carries more than its time to live and its type of service", e);
	}
}

static int take_v6(Reprise__InetDatagram *d, const struct cmsghdr *c, bool mapped,
		   struct scratch *s, struct error *e)
{
	struct in6_pktinfo info;
	int value;

	switch (c->cmsg_type) {
	case IPV6_HOPLIMIT:
		memcpy(&value, CMSG_DATA(c), sizeof(value));
		d->ttl = (uint32_t)value;
		return 0;
	case IPV6_TCLASS:
		memcpy(&value, CMSG_DATA(c), sizeof(value));
		d->tos = (uint32_t)value;
		return 0;
	case IPV6_PKTINFO:
		memcpy(&info, CMSG_DATA(c), sizeof(info));
		if (mapped) /* the last four bytes of ::ffff:a.b.c.d */
			return take_destination(d, &info.ipi6_addr.s6_addr[12], 4,
						info.ipi6_ifindex, s, e);
		if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr))
			return too_odd("it was sent to a group", e);
		return take_destination(d, &info.ipi6_addr, sizeof(info.ipi6_addr),
					info.ipi6_ifindex, s, e);
	default:
		return too_odd("it carries more than its hop limit and its traffic class", e);
	}
}

static int take_control(Reprise__InetDatagram *d, struct msghdr *msg, bool mapped,
			struct scratch *s, struct error *e)
{
	int r = 0;

	if (msg->msg_flags & MSG_CTRUNC)
		return too_odd("too much comes with it", e);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c && r >= 0; c = CMSG_NXTHDR(msg, c))
		if (c->cmsg_level == IPPROTO_IP)
			r = take_v4(d, c, s, e);
		else if (c->cmsg_level == IPPROTO_IPV6)
			r = take_v6(d, c, mapped, s, e);
		else
			r = too_odd(c->cmsg_level == SOL_SOCKET
					    ? "it carries a time stamp, a mark or a count of losses"
					    : "it was put together from several (UDP_GRO)",
				    e);
	return r;
}

static int take_sender(Reprise__InetDatagram *d, const struct msghdr *msg, struct scratch *s,
		       struct error *e)
{
	const struct sockaddr_in *in = msg->msg_name;
	const struct sockaddr_in6 *in6 = msg->msg_name;

	if (in->sin_family == AF_INET ? !in->sin_addr.s_addr
				      : IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr))
		return too_odd("its sender had no address yet", e);
	if (in->sin_family == AF_INET6 && (in6->sin6_scope_id || in6->sin6_flowinfo))
		return too_odd("it came from a link-local address, or shows a flow label", e);
	d->sender.len = msg->msg_namelen;
	d->sender.data = scratch_copy(s, msg->msg_name, msg->msg_namelen);
	return d->sender.data ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory");
}

/* ---- the queue ---- */

static int add(struct reader *rd, struct msghdr *msg, size_t len, struct error *e)
{
	Reprise__InetDatagram *d =
		scratch_message(rd->s, Reprise__InetDatagram, reprise__inet_datagram__init);
	Reprise__InetDatagram **slot = vec_push(&rd->list);
	const struct sockaddr_in6 *in6 = msg->msg_name;
	bool mapped = in6->sin6_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
	int r;

	if (!d || !slot)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for datagrams");
	*slot = d;
	if (msg->msg_flags & MSG_TRUNC || len > inject_max(in6->sin6_family == AF_INET6 && !mapped))
		return too_odd("it is too long", e);
	d->data.len = len;
	d->data.data = scratch_copy(rd->s, rd->buf, len);
	if (len && !d->data.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for datagrams");
	r = take_sender(d, msg, rd->s, e);
	return r < 0 ? r : take_control(d, msg, mapped, rd->s, e);
}

/* The length of the datagram, or -EAGAIN. */
static ssize_t peek(struct reader *rd, bool keep, struct error *e)
{
	struct sockaddr_in6 from = {};
	char control[512] __attribute__((aligned(8)));
	struct iovec iov = {.iov_base = rd->buf, .iov_len = sizeof(rd->buf)};
	struct msghdr msg = {.msg_name = &from,
			     .msg_namelen = sizeof(from),
			     .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(rd->fd, &msg, MSG_PEEK | MSG_DONTWAIT);
	int r = 0;

	if (n < 0)
		return errno == EAGAIN
			       ? -EAGAIN
			       : error_errno(e, -errno, E_FILE_STATE, "cannot look into its queue");
	if (keep)
		r = add(rd, &msg, (size_t)n, e);
	return r < 0 ? r : n;
}

static int set_peek_off(int fd, int offset, struct error *e)
{
	if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)) < 0)
		return error_errno(e, -errno, E_KERNEL_TOO_OLD, "SO_PEEK_OFF");
	return 0;
}

/* The first is seen without an offset, those behind it with. An empty first one has been seen, so
 * that it is not shown again. */
static int peek_behind(struct reader *rd, bool first_empty, struct error *e)
{
	size_t sum = 0;
	ssize_t n;

	for (bool first = !first_empty;; first = false) {
		if (sum > INT_MAX / 2)
			return too_odd("there are too many of them", e);
		n = peek(rd, !first, e);
		if (n < 0)
			return n == -EAGAIN ? 0 : (int)n;
		rd->empty_behind |= n == 0;
		sum += (size_t)n;
	}
}

static int peek_all(struct reader *rd, int original, struct error *e)
{
	/* Should we die, nobody knows whether empty ones are marked by then. */
	const struct agent_promise undo = {
		.nr = SYS_setsockopt,
		.args = {(uint64_t)rd->entry->fd, SOL_SOCKET, SO_PEEK_OFF, 0, sizeof(int)},
		.value_arg = 3,
		.value = PEEK_OFF_EMPTY,
	};
	ssize_t n = peek(rd, true, e);
	struct error unused = {};
	int r, back, put;

	if (n < 0)
		return n == -EAGAIN ? 0 : (int)n;
	r = file_promise(rd->c, rd->entry, &undo, 1, e);
	if (r >= 0)
		r = set_peek_off(rd->fd, 0, e);
	if (r < 0)
		return file_absolve(rd->c, rd->entry, r, e);
	r = peek_behind(rd, n == 0, e);
	back = rd->empty_behind ? PEEK_OFF_EMPTY : original;
	put = socket_put_back(rd->fd, SO_PEEK_OFF, back, r < 0 ? &unused : e);
	if (r >= 0)
		r = put;
	return file_absolve(rd->c, rd->entry, r, e);
}

/*
 * The first one alone: the application peeks, too. One without bytes would be marked, and a notice
 * that comes in this moment (inet_hidden_save() refuses earlier ones) would be taken.
 */
static int peek_running(struct reader *rd, struct error *e)
{
	int size = 0, noticed = 0;
	socklen_t len = sizeof(noticed);
	ssize_t n;

	if (ioctl(rd->fd, FIONREAD, &size) < 0 || size <= 0)
		return 0;
	if (getsockopt(rd->fd, IPPROTO_IPV6, IPV6_RECVPATHMTU, &noticed, &len) == 0 && noticed)
		return 0;
	n = peek(rd, true, e);
	return n < 0 && n != -EAGAIN ? (int)n : 0;
}

static int read_queue(struct reader *rd, Reprise__InetSocket *m, int original, struct error *e)
{
	int r;

	if (original == PEEK_OFF_EMPTY)
		return too_odd("one without bytes is shown once only", e);
	if (original >= 0)
		return too_odd("the socket is peeked into at an offset (SO_PEEK_OFF)", e);
	r = rd->c->checking ? peek_running(rd, e) : peek_all(rd, original, e);
	if (r < 0 || !rd->list.n)
		return r;
	m->queue = scratch_copy(rd->s, rd->list.v, rd->list.n * sizeof(*rd->list.v));
	m->n_queue = m->queue ? rd->list.n : 0;
	return m->queue ? 0 : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for datagrams");
}

/*
 * Whoever asks for an error takes it, and so does everybody who receives. The kernel's memory tells
 * which it is, if it may be read; only the usual one can be made again.
 */
static int save_error(struct checkpoint *c, int fd, Reprise__InetSocket *m, short seen,
		      struct error *e)
{
	if (!(seen & POLLIN) && m->remote.len && kernel_sock_error(c, fd) == ECONNREFUSED) {
		m->refused = true;
		return 0;
	}
	return error_set(
		e, -EBUSY, E_FILE_STATE,
		"an error waits to be read there, such as that nobody listens at the other "
		"end; try again");
}

int inet_queue_save(struct checkpoint *c, const struct file_entry *f, int fd,
		    Reprise__InetSocket *m, struct scratch *s, struct error *e)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
	struct reader *rd;
	int original = -1, r, none = -1;

	if (poll(&p, 1, 0) > 0 && (p.revents & POLLERR))
		return save_error(c, fd, m, p.revents, e);
	if (p.revents & POLLRDHUP)
		m->shutdown = p.revents & POLLHUP ? 3 : 1;
	r = socket_number(fd, SOL_SOCKET, SO_PEEK_OFF, &original, e);
	if (r < 0)
		return r;
	if (original < 0)
		inet_drop_option(m->socket, SOL_SOCKET, SO_PEEK_OFF);
	if (!(p.revents & POLLIN))
		return original == PEEK_OFF_EMPTY && !c->checking ? set_peek_off(fd, none, e) : 0;
	rd = calloc(1, sizeof(*rd));
	if (!rd)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for datagrams");
	rd->c = c;
	rd->entry = f;
	rd->fd = fd;
	rd->s = s;
	r = read_queue(rd, m, original, e);
	vec_free(&rd->list);
	free(rd);
	return r;
}

/* ---- restart ---- */

static bool is_v6(const ProtobufCBinaryData *sender)
{
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sender->data;

	return in6->sin6_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
}

static bool datagram_valid(const Reprise__InetDatagram *d, int family)
{
	size_t want = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	size_t address;

	if (d->sender.len != want || ((const struct sockaddr *)d->sender.data)->sa_family != family)
		return false;
	address = is_v6(&d->sender) ? sizeof(struct in6_addr) : sizeof(struct in_addr);
	return d->data.len <= inject_max(is_v6(&d->sender)) && d->ttl <= 255 && d->tos <= 255 &&
	       (!d->destination.len || d->destination.len == address);
}

int inet_queue_validate(const Reprise__InetSocket *m, struct error *e)
{
	const Reprise__Socket *so = m->socket;

	if (so->type == SOCK_RAW || inet_is_ping(so))
		return raw_queue_validate(m, e);
	if (m->n_queue && (so->type != SOCK_DGRAM || (so->protocol && so->protocol != IPPROTO_UDP &&
						      so->protocol != IPPROTO_UDPLITE)))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a socket cannot have such a queue");
	for (size_t i = 0; i < m->n_queue; i++)
		if (!datagram_valid(m->queue[i], so->family))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "an improper datagram in the queue of a socket");
	return 0;
}

int buffer_widen(int fd, size_t n)
{
	int was = 0, wanted = n > INT_MAX / 2 ? INT_MAX / 2 : (int)n;
	socklen_t len = sizeof(was);

	ignore(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &was, &len), "filling will tell");
	if (was >= wanted)
		return 0;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &wanted, sizeof(wanted)) < 0)
		ignore(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &wanted, sizeof(wanted)),
		       "filling will tell");
	return was;
}

void buffer_narrow(int fd, int was)
{
	int half = was / 2, lock = 0; /* doubled when set */

	if (!was)
		return;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &half, sizeof(half)) < 0)
		ignore(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &half, sizeof(half)), "as it was");
	ignore(setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, sizeof(lock)),
	       "older kernels than 5.14 do not show it either");
}

static int set_number(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* What the socket must ask for when they arrive, to be told later. All options are set to what they
 * were afterwards. */
static int ask_for_destination(int fd, const Reprise__InetSocket *m)
{
	int r = 0;

	for (size_t i = 0; i < m->n_queue && r >= 0; i++) {
		if (!m->queue[i]->destination.len)
			continue;
		r = set_number(fd, IPPROTO_IP, IP_PKTINFO, 1);
		if (r >= 0 && m->socket->family == AF_INET6)
			r = set_number(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
	}
	return r;
}

static int forget_options(int fd, const Reprise__InetSocket *m)
{
	int r = set_number(fd, IPPROTO_IP, IP_PKTINFO, 0);

	if (r >= 0 && m->socket->family == AF_INET6)
		r = set_number(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 0);
	return r;
}

static size_t room_for(const Reprise__InetSocket *m)
{
	size_t sum = 0;

	/* An sk_buff, and pages that are not full (SKB_TRUESIZE()). */
	for (size_t i = 0; i < m->n_queue; i++)
		sum += 2 * m->queue[i]->data.len + 4096;
	return sum;
}

int inet_queue_fill(int fd, const Reprise__InetSocket *m,
		    int (*other)(void *arg, const ProtobufCBinaryData *address), void *arg,
		    struct error *e)
{
	_cleanup_(injector_free) struct injector *in = NULL;
	int was, v6only = 0, r;
	socklen_t len = sizeof(v6only);

	if (!m->n_queue)
		return 0;
	was = buffer_widen(fd, room_for(m));
	if (m->socket->family == AF_INET6 &&
	    (getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, &len) < 0 ||
	     set_number(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0) < 0))
		return error_errno(e, -errno, E_RESTORE, "IPV6_V6ONLY");
	r = ask_for_destination(fd, m);
	if (r < 0)
		return error_errno(e, r, E_RESTORE, "IP_PKTINFO");
	r = injector_new(&in, fd, m->socket, other, arg, e);
	for (size_t i = 0; i < m->n_queue && r >= 0; i++)
		r = inject(in, m->queue[i], e);
	if (r >= 0)
		r = injector_release(in, e);
	if (r < 0)
		return r;
	if (m->socket->family == AF_INET6)
		r = set_number(fd, IPPROTO_IPV6, IPV6_V6ONLY, v6only);
	if (r >= 0)
		r = forget_options(fd, m);
	buffer_narrow(fd, was);
	return r < 0 ? error_errno(e, r, E_RESTORE, "options of a socket") : 0;
}

static int send_in_vain(int fd, int family)
{
	_cleanup_(close_fd) int holder = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct endpoint at = loopback(family);

	/* A port that was free a moment ago. */
	if (holder < 0 || bind(holder, &at.addr.any, at.len) < 0 ||
	    getsockname(holder, &at.addr.any, &at.len) < 0)
		return -errno;
	close_fd(&holder);
	return connect(fd, &at.addr.any, at.len) < 0 || send(fd, "", 0, MSG_NOSIGNAL) < 0 ? -errno
											  : 0;
}

int inet_refusal_make(int fd, const Reprise__InetSocket *m, struct error *e)
{
	const struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct pollfd p = {.fd = fd};
	int r = 0;

	if (!m->refused)
		return 0;
	/* The kernel limits how many such messages it sends (icmp_global_allow()). */
	for (int i = 0; i < REFUSAL_ATTEMPTS && r >= 0 && !(p.revents & POLLERR); i++) {
		r = send_in_vain(fd, m->socket->family);
		if (r >= 0 && poll(&p, 1, REFUSAL_WAIT_MS) < 0)
			r = -errno;
	}
	if (r >= 0 && !(p.revents & POLLERR))
		r = -ETIMEDOUT;
	if (r >= 0 && connect(fd, &none, sizeof(none)) < 0)
		r = -errno;
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot make the error that waited there") : 0;
}
