/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Socket options. All that can be read is compared with a new socket of the
 * same kind, and what differs is kept: what nobody has set does not matter, on kernels that
 * do not know it either.
 */
#include "net/sockopt.h"

#include <errno.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/in6.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/socket.h"

#define VALUE_MAX 128

/* Numbers of the kernel, where the headers of libc are older. */
enum {
	OPT_SO_TIMESTAMP_NEW = 63,
	OPT_SO_TIMESTAMPNS_NEW = 64,
	OPT_SO_TIMESTAMPING_NEW = 65,
	OPT_SO_PREFER_BUSY_POLL = 69,
	OPT_SO_BUF_LOCK = 72,
	OPT_SO_TXREHASH = 74,
	OPT_SO_RESERVE_MEM = 73,
	OPT_SO_RCVMARK = 75,
	OPT_SO_PASSPIDFD = 76,
	OPT_SO_RCVPRIORITY = 82,
	OPT_SO_PASSRIGHTS = 83,
	OPT_IP_RECVERR_RFC4884 = 26,
	OPT_IP_LOCAL_PORT_RANGE = 51,
	OPT_IP_MULTICAST_ALL = 49,
	OPT_IPV6_MULTICAST_ALL = 29,
	OPT_IPV6_ROUTER_ALERT_ISOLATE = 30,
	OPT_IPV6_RECVERR_RFC4884 = 31,
	OPT_IPV6_HDRINCL = 36,
	OPT_IPV6_AUTOFLOWLABEL = 70,
	OPT_IPV6_FREEBIND = 78,
	OPT_TCP_SAVE_SYN = 27,
	OPT_TCP_FASTOPEN_NO_COOKIE = 34,
	OPT_TCP_TX_DELAY = 37,
	OPT_TCP_RTO_MAX_MS = 44,
	OPT_TCP_RTO_MIN_US = 45,
	OPT_TCP_DELACK_MAX_US = 46,
	OPT_UDPLITE_SEND_CSCOV = 10,
	OPT_UDPLITE_RECV_CSCOV = 11,
};

struct option {
	int level, name;
};

static const struct option options[] = {
	{SOL_SOCKET, SO_REUSEADDR},
	{SOL_SOCKET, SO_REUSEPORT},
	{SOL_SOCKET, SO_KEEPALIVE},
	{SOL_SOCKET, SO_BROADCAST},
	{SOL_SOCKET, SO_OOBINLINE},
	{SOL_SOCKET, SO_DONTROUTE},
	{SOL_SOCKET, SO_DEBUG},
	{SOL_SOCKET, SO_NO_CHECK},
	{SOL_SOCKET, SO_PRIORITY},
	{SOL_SOCKET, SO_LINGER},
	{SOL_SOCKET, SO_BSDCOMPAT},
	{SOL_SOCKET, SO_PASSCRED},
	{SOL_SOCKET, SO_PASSSEC},
	{SOL_SOCKET, OPT_SO_PASSPIDFD},
	{SOL_SOCKET, OPT_SO_PASSRIGHTS},
	{SOL_SOCKET, SO_RCVLOWAT},
	{SOL_SOCKET, SO_RCVTIMEO},
	{SOL_SOCKET, SO_SNDTIMEO},
	{SOL_SOCKET, SO_SNDBUF},
	{SOL_SOCKET, SO_RCVBUF},
	{SOL_SOCKET, SO_TIMESTAMP},
	{SOL_SOCKET, SO_TIMESTAMPNS},
	{SOL_SOCKET, SO_TIMESTAMPING},
	/* The same with other structures: the kernel keeps for all of them which was used last. */
	{SOL_SOCKET, OPT_SO_TIMESTAMPING_NEW},
	{SOL_SOCKET, OPT_SO_TIMESTAMP_NEW},
	{SOL_SOCKET, OPT_SO_TIMESTAMPNS_NEW},
	{SOL_SOCKET, SO_MARK},
	{SOL_SOCKET, SO_RXQ_OVFL},
	{SOL_SOCKET, SO_WIFI_STATUS},
	{SOL_SOCKET, SO_PEEK_OFF},
	{SOL_SOCKET, SO_NOFCS},
	{SOL_SOCKET, SO_SELECT_ERR_QUEUE},
	{SOL_SOCKET, SO_BUSY_POLL},
	{SOL_SOCKET, SO_MAX_PACING_RATE},
	{SOL_SOCKET, SO_ZEROCOPY},
	{SOL_SOCKET, OPT_SO_TXREHASH},
	{SOL_SOCKET, OPT_SO_RESERVE_MEM},
	{SOL_SOCKET, SO_TXTIME},
	{SOL_SOCKET, OPT_SO_PREFER_BUSY_POLL},
	{SOL_SOCKET, OPT_SO_RCVMARK},
	{SOL_SOCKET, OPT_SO_RCVPRIORITY},
	{SOL_SOCKET, SO_INCOMING_CPU},
	{SOL_SOCKET, OPT_SO_BUF_LOCK},
	{SOL_SOCKET, SO_LOCK_FILTER},
	{SOL_SOCKET, SO_BINDTODEVICE},
	{IPPROTO_IP, IP_TOS},
	{IPPROTO_IP, IP_TTL},
	{IPPROTO_IP, IP_HDRINCL},
	{IPPROTO_IP, IP_MTU_DISCOVER},
	{IPPROTO_IP, IP_RECVERR},
	{IPPROTO_IP, IP_RECVTTL},
	{IPPROTO_IP, IP_RECVTOS},
	{IPPROTO_IP, IP_PKTINFO},
	{IPPROTO_IP, IP_RECVOPTS},
	{IPPROTO_IP, IP_ROUTER_ALERT},
	{IPPROTO_IP, IP_RETOPTS},
	{IPPROTO_IP, IP_OPTIONS},
	{IPPROTO_IP, IP_PASSSEC},
	{IPPROTO_IP, OPT_IP_RECVERR_RFC4884},
	{IPPROTO_IP, IP_RECVORIGDSTADDR},
	{IPPROTO_IP, IP_FREEBIND},
	{IPPROTO_IP, IP_TRANSPARENT},
	{IPPROTO_IP, IP_MINTTL},
	{IPPROTO_IP, IP_NODEFRAG},
	{IPPROTO_IP, IP_CHECKSUM},
	{IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT},
	{IPPROTO_IP, IP_RECVFRAGSIZE},
	{IPPROTO_IP, IP_MULTICAST_TTL},
	{IPPROTO_IP, IP_MULTICAST_LOOP},
	{IPPROTO_IP, IP_MULTICAST_IF},
	{IPPROTO_IP, OPT_IP_MULTICAST_ALL},
	{IPPROTO_IP, IP_UNICAST_IF},
	{IPPROTO_IP, OPT_IP_LOCAL_PORT_RANGE},
	{IPPROTO_IPV6, IPV6_V6ONLY},
	{IPPROTO_IPV6, IPV6_UNICAST_HOPS},
	{IPPROTO_IPV6, IPV6_MULTICAST_HOPS},
	{IPPROTO_IPV6, IPV6_MULTICAST_LOOP},
	{IPPROTO_IPV6, IPV6_MULTICAST_IF},
	{IPPROTO_IPV6, IPV6_UNICAST_IF},
	{IPPROTO_IPV6, OPT_IPV6_MULTICAST_ALL},
	{IPPROTO_IPV6, IPV6_MTU_DISCOVER},
	{IPPROTO_IPV6, IPV6_RECVERR},
	{IPPROTO_IPV6, IPV6_RECVPKTINFO},
	{IPPROTO_IPV6, IPV6_RECVHOPLIMIT},
	{IPPROTO_IPV6, IPV6_RECVRTHDR},
	{IPPROTO_IPV6, IPV6_RECVHOPOPTS},
	{IPPROTO_IPV6, IPV6_RECVDSTOPTS},
	{IPPROTO_IPV6, IPV6_HOPOPTS},
	{IPPROTO_IPV6, IPV6_RTHDRDSTOPTS},
	{IPPROTO_IPV6, IPV6_RTHDR},
	{IPPROTO_IPV6, IPV6_DSTOPTS},
	{IPPROTO_IPV6, IPV6_2292PKTINFO},
	{IPPROTO_IPV6, IPV6_2292HOPOPTS},
	{IPPROTO_IPV6, IPV6_2292DSTOPTS},
	{IPPROTO_IPV6, IPV6_2292RTHDR},
	{IPPROTO_IPV6, IPV6_2292HOPLIMIT},
	{IPPROTO_IPV6, IPV6_FLOWINFO},
	{IPPROTO_IPV6, IPV6_FLOWINFO_SEND},
	{IPPROTO_IPV6, IPV6_RECVFRAGSIZE},
	{IPPROTO_IPV6, IPV6_CHECKSUM},
	{IPPROTO_IPV6, OPT_IPV6_HDRINCL},
	{IPPROTO_IPV6, OPT_IPV6_ROUTER_ALERT_ISOLATE},
	{IPPROTO_IPV6, OPT_IPV6_RECVERR_RFC4884},
	{IPPROTO_IPV6, IPV6_TCLASS},
	{IPPROTO_IPV6, IPV6_RECVTCLASS},
	{IPPROTO_IPV6, IPV6_DONTFRAG},
	{IPPROTO_IPV6, IPV6_RECVPATHMTU},
	{IPPROTO_IPV6, IPV6_TRANSPARENT},
	{IPPROTO_IPV6, OPT_IPV6_FREEBIND},
	{IPPROTO_IPV6, IPV6_RECVORIGDSTADDR},
	{IPPROTO_IPV6, OPT_IPV6_AUTOFLOWLABEL},
	{IPPROTO_IPV6, IPV6_ADDR_PREFERENCES},
	{IPPROTO_IPV6, IPV6_MINHOPCOUNT},
	{IPPROTO_TCP, TCP_NODELAY},
	{IPPROTO_TCP, TCP_CORK},
	{IPPROTO_TCP, TCP_KEEPIDLE},
	{IPPROTO_TCP, TCP_KEEPINTVL},
	{IPPROTO_TCP, TCP_KEEPCNT},
	{IPPROTO_TCP, TCP_SYNCNT},
	{IPPROTO_TCP, TCP_LINGER2},
	{IPPROTO_TCP, TCP_DEFER_ACCEPT},
	{IPPROTO_TCP, TCP_QUICKACK},
	{IPPROTO_TCP, TCP_WINDOW_CLAMP},
	{IPPROTO_TCP, TCP_CONGESTION},
	{IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS},
	{IPPROTO_TCP, TCP_USER_TIMEOUT},
	{IPPROTO_TCP, TCP_FASTOPEN},
	{IPPROTO_TCP, TCP_FASTOPEN_CONNECT},
	{IPPROTO_TCP, TCP_NOTSENT_LOWAT},
	{IPPROTO_TCP, OPT_TCP_SAVE_SYN},
	{IPPROTO_TCP, TCP_INQ},
	{IPPROTO_TCP, OPT_TCP_FASTOPEN_NO_COOKIE},
	{IPPROTO_TCP, OPT_TCP_TX_DELAY},
	{IPPROTO_TCP, TCP_MAXSEG},
	{IPPROTO_TCP, TCP_FASTOPEN_KEY},
	{IPPROTO_TCP, OPT_TCP_RTO_MAX_MS},
	{IPPROTO_TCP, OPT_TCP_RTO_MIN_US},
	{IPPROTO_TCP, OPT_TCP_DELACK_MAX_US},
	{IPPROTO_UDP, UDP_CORK},
	{IPPROTO_UDP, UDP_ENCAP},
	{IPPROTO_UDP, UDP_NO_CHECK6_TX},
	{IPPROTO_UDP, UDP_NO_CHECK6_RX},
	{IPPROTO_UDP, UDP_SEGMENT},
	{IPPROTO_UDP, UDP_GRO},
	{IPPROTO_UDPLITE, OPT_UDPLITE_SEND_CSCOV},
	{IPPROTO_UDPLITE, OPT_UDPLITE_RECV_CSCOV},
	{SOL_RAW, ICMP_FILTER},
	{SOL_ICMPV6, ICMPV6_FILTER},
	{SOL_NETLINK, NETLINK_PKTINFO},
	{SOL_NETLINK, NETLINK_BROADCAST_ERROR},
	{SOL_NETLINK, NETLINK_NO_ENOBUFS},
	{SOL_NETLINK, NETLINK_LISTEN_ALL_NSID},
	{SOL_NETLINK, NETLINK_CAP_ACK},
	{SOL_NETLINK, NETLINK_EXT_ACK},
	{SOL_NETLINK, NETLINK_GET_STRICT_CHK},
};

/* A level of another family is not asked: numbers mean other things there. */
static bool applies(const Reprise__Socket *m, const struct option *o)
{
	switch (o->level) {
	case SOL_SOCKET: /* that one can be read and not be set (mptcp_setsockopt_sol_socket()) */
		return o->name != OPT_SO_BUF_LOCK || m->protocol != IPPROTO_MPTCP;
	case IPPROTO_IP:
		return m->family == AF_INET || m->family == AF_INET6;
	case IPPROTO_IPV6:
		return m->family == AF_INET6;
	case IPPROTO_TCP:
		return (m->family == AF_INET || m->family == AF_INET6) && m->type == SOCK_STREAM &&
		       (!m->protocol || m->protocol == IPPROTO_TCP || m->protocol == IPPROTO_MPTCP);
	case IPPROTO_UDP:
		return (m->family == AF_INET || m->family == AF_INET6) && m->type == SOCK_DGRAM &&
		       (!m->protocol || m->protocol == IPPROTO_UDP ||
			m->protocol == IPPROTO_UDPLITE);
	case IPPROTO_UDPLITE:
		return (m->family == AF_INET || m->family == AF_INET6) &&
		       m->protocol == IPPROTO_UDPLITE;
	case SOL_RAW:
		return m->family == AF_INET && m->type == SOCK_RAW;
	case SOL_ICMPV6:
		return m->family == AF_INET6 && m->type == SOCK_RAW;
	case SOL_NETLINK:
		return m->family == AF_NETLINK;
	default:
		return false;
	}
}

/* Those that a new socket knows, but has none of. */
static bool empty_when_new(const struct option *o)
{
	switch (o->level) {
	case SOL_SOCKET:
		return o->name == SO_BINDTODEVICE;
	case IPPROTO_IP:
		return o->name == IP_OPTIONS;
	case IPPROTO_TCP:
		return o->name == TCP_FASTOPEN_KEY;
	case IPPROTO_IPV6:
		return o->name == IPV6_HOPOPTS || o->name == IPV6_RTHDRDSTOPTS ||
		       o->name == IPV6_RTHDR || o->name == IPV6_DSTOPTS;
	default:
		return false;
	}
}

struct value {
	unsigned char bytes[VALUE_MAX];
	socklen_t len; /* 0: it cannot be read, or is empty */
};

static int read_value(int fd, const struct option *o, struct value *v, struct error *e)
{
	memset(v, 0, sizeof(*v));
	v->len = sizeof(v->bytes);
	if (getsockopt(fd, o->level, o->name, v->bytes, &v->len) == 0)
		return 0;
	v->len = 0;
	return socket_unsure(errno) && errno != EPERM
		       ? error_errno(e, -errno, E_SYSTEM,
				     "cannot read option %d of level %d of a socket", o->name,
				     o->level)
		       : 0;
}

#define NOPTIONS (sizeof(options) / sizeof(options[0]))

/* The values of a new socket, by what it was made of. */
struct sockopt_defaults {
	int family, type, protocol;
	struct value values[NOPTIONS];
	struct sockopt_defaults *next;
};

static int get_defaults(struct sockopt_defaults **list, const Reprise__Socket *m,
			const struct sockopt_defaults **ret, struct error *e)
{
	_cleanup_(close_fd) int fresh = -EBADF;
	struct sockopt_defaults *d;
	int r = 0;

	for (d = *list; d; d = d->next)
		if (d->family == m->family && d->type == m->type && d->protocol == m->protocol) {
			*ret = d;
			return 0;
		}
	fresh = socket(m->family, m->type | SOCK_CLOEXEC, m->protocol);
	if (fresh < 0)
		return error_errno(
			e, -errno, errno == EPERM ? E_PERMISSION : E_FILE_KIND,
			"a socket of family %d, type %d, protocol %d cannot be made here",
			m->family, m->type, m->protocol);
	d = calloc(1, sizeof(*d));
	if (!d)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for socket options");
	d->family = m->family;
	d->type = m->type;
	d->protocol = m->protocol;
	for (size_t i = 0; i < NOPTIONS && r >= 0; i++)
		if (applies(m, &options[i]))
			r = read_value(fresh, &options[i], &d->values[i], e);
	if (r < 0) {
		free(d);
		return r;
	}
	d->next = *list;
	*list = d;
	*ret = d;
	return 0;
}

void sockopt_defaults_free(struct sockopt_defaults *list)
{
	while (list) {
		struct sockopt_defaults *next = list->next;

		free(list);
		list = next;
	}
}

static Reprise__SocketOption *new_option(const struct option *o, const struct value *v,
					 struct scratch *s)
{
	Reprise__SocketOption *x =
		scratch_message(s, Reprise__SocketOption, reprise__socket_option__init);

	if (!x)
		return NULL;
	x->level = o->level;
	x->name = o->name;
	x->value.len = v->len;
	x->value.data = scratch_copy(s, v->bytes, v->len);
	return x->value.data ? x : NULL;
}

int sockopt_save(int fd, Reprise__Socket *m, struct sockopt_defaults **defaults, struct scratch *s,
		 struct error *e)
{
	Reprise__SocketOption *list[NOPTIONS];
	const struct sockopt_defaults *d = NULL;
	size_t n = 0;
	int r = get_defaults(defaults, m, &d, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < NOPTIONS; i++) {
		struct value is;

		/* What a new socket does not know this one does not either. */
		if (!applies(m, &options[i]) || (!d->values[i].len && !empty_when_new(&options[i])))
			continue;
		r = read_value(fd, &options[i], &is, e);
		if (r < 0)
			return r;
		if (!is.len ||
		    (is.len == d->values[i].len && !memcmp(is.bytes, d->values[i].bytes, is.len)))
			continue;
		list[n] = new_option(&options[i], &is, s);
		if (!list[n++])
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for socket options");
	}
	m->options = scratch_copy(s, list, n * sizeof(*list));
	if (!m->options)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for socket options");
	m->n_options = n;
	return 0;
}

/* ---- restart ---- */

int sockopt_validate(const Reprise__Socket *m, struct error *e)
{
	for (size_t i = 0; i < m->n_options; i++) {
		const Reprise__SocketOption *x = m->options[i];
		bool known = false;

		for (size_t k = 0; k < sizeof(options) / sizeof(options[0]); k++)
			known |= options[k].level == x->level && options[k].name == x->name &&
				 applies(m, &options[k]);
		if (!known || x->value.len > VALUE_MAX || !x->value.len)
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "a socket with an improper option %d of level %d", x->name,
					 x->level);
	}
	return 0;
}

/* The kernel doubles what is set (sk_setsockopt()), and limits it unless told otherwise. */
static int set_buffer(int fd, const Reprise__SocketOption *x)
{
	int value, force = x->name == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE;

	if (x->value.len != sizeof(value))
		return -EINVAL;
	memcpy(&value, x->value.data, sizeof(value));
	value /= 2;
	if (setsockopt(fd, SOL_SOCKET, force, &value, sizeof(value)) == 0)
		return 0;
	return setsockopt(fd, SOL_SOCKET, x->name, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int set_option(int fd, const Reprise__SocketOption *x)
{
	if (x->level == SOL_SOCKET && (x->name == SO_SNDBUF || x->name == SO_RCVBUF))
		return set_buffer(fd, x);
	return setsockopt(fd, x->level, x->name, x->value.data, (socklen_t)x->value.len) < 0
		       ? -errno
		       : 0;
}

/*
 * Those of Unix sockets that change what a message carries or whether it is taken, or that give the
 * socket a name (unix_autobind()): they are set when all queues have been filled.
 */
static bool is_late(const Reprise__Socket *m, const Reprise__SocketOption *x)
{
	if (x->level != SOL_SOCKET)
		return false;
	if (x->name == SO_LOCK_FILTER || x->name == OPT_SO_BUF_LOCK)
		return true;
	if (m->family != AF_UNIX)
		return false;
	return x->name == SO_PASSCRED || x->name == SO_PASSSEC || x->name == OPT_SO_PASSPIDFD ||
	       x->name == OPT_SO_PASSRIGHTS || x->name == SO_OOBINLINE;
}

static int restore(int fd, const Reprise__Socket *m, bool late, struct error *e)
{
	for (size_t i = 0; i < m->n_options; i++) {
		const Reprise__SocketOption *x = m->options[i];
		int r = is_late(m, x) == late ? set_option(fd, x) : 0;

		if (r < 0)
			return error_errno(e, r, r == -EPERM ? E_CREDENTIALS : E_RESTORE,
					   "cannot set option %d of level %d of a socket", x->name,
					   x->level);
	}
	return 0;
}

int sockopt_restore(int fd, const Reprise__Socket *m, struct error *e)
{
	return restore(fd, m, false, e);
}

int sockopt_restore_late(int fd, const Reprise__Socket *m, struct error *e)
{
	const int none = 0;

	/* Whoever sets the size of a buffer fixes it, so we have. */
	ignore(setsockopt(fd, SOL_SOCKET, OPT_SO_BUF_LOCK, &none, sizeof(none)),
	       "kernels before 5.15 do not tell either");
	return restore(fd, m, true, e);
}
