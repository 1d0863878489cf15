/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root sends a packet that it has made itself, over the loopback device: such a
 * packet carries its route with it, so that neither its source nor its destination is checked
 * (ip_rcv_finish_core()). Others send from a socket that has the address of the sender.
 */
#include "net/inet_inject.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/patience.h"

#define LOOPBACK_MTU   65536
#define DEFAULT_TTL    64
#define NONCE	       0x52ee /* in the identification, or the flow label */
#define FLOW_LABEL_LOW 2      /* bytes 2 and 3 of a header of IPv6: the low half of the label */
#define IPV4_ID	       4      /* bytes 4 and 5 of a header of IPv4 */

struct injector {
	int fd;
	int raw4, raw6; /* -EPERM: not allowed */
	int protocol;
	int family;
	uint16_t port; /* of fd, for the moment; network order */
	int (*other)(void *arg, const ProtobufCBinaryData *address);
	void *arg;
	unsigned char packet[LOOPBACK_MTU];
};

/* An address and a port, without the disguise of IPv4 in IPv6. */
struct end {
	bool v6;
	union {
		struct in_addr v4;
		struct in6_addr six;
	};
	uint16_t port;
};

size_t inject_max(bool v6)
{
	/* The length in a header of IPv4 counts the header; the device limits the rest. */
	return v6 ? LOOPBACK_MTU - sizeof(struct ip6_hdr) - sizeof(struct udphdr)
		  : UINT16_MAX - sizeof(struct ip) - sizeof(struct udphdr);
}

static struct end end_of(const ProtobufCBinaryData *address)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)address->data;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address->data;
	struct end x = {};

	if (in->sin_family == AF_INET) {
		x.v4 = in->sin_addr;
		x.port = in->sin_port;
		return x;
	}
	x.port = in6->sin6_port;
	x.v6 = !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
	if (x.v6)
		x.six = in6->sin6_addr;
	else
		memcpy(&x.v4, &in6->sin6_addr.s6_addr[12], sizeof(x.v4));
	return x;
}

static struct end destination_of(const struct injector *in, const Reprise__InetDatagram *d, bool v6)
{
	struct end x = {.v6 = v6, .port = in->port};

	if (v6)
		x.six = in6addr_loopback;
	else
		x.v4.s_addr = htonl(INADDR_LOOPBACK);
	if (d->destination.len)
		memcpy(&x.six, d->destination.data, d->destination.len);
	return x;
}

/* ---- packets ---- */

static uint32_t sum_up(const void *data, size_t len, uint32_t sum)
{
	const unsigned char *p = data;

	for (; len > 1; p += 2, len -= 2)
		sum += (uint32_t)p[0] << 8 | p[1];
	if (len)
		sum += (uint32_t)p[0] << 8;
	return (sum & 0xffff) + (sum >> 16);
}

static uint16_t checksum(const struct end *from, const struct end *to, int protocol,
			 const void *datagram, size_t len)
{
	size_t size = from->v6 ? sizeof(from->six) : sizeof(from->v4);
	uint32_t sum = (uint32_t)protocol + (uint32_t)len;

	sum = sum_up(&from->six, size, sum);
	sum = sum_up(&to->six, size, sum);
	/* 64 KiB of 16-bit numbers do not overflow 32 bits. */
	sum = sum_up(datagram, len, sum);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons(sum == 0xffff ? 0xffff : (uint16_t)~sum); /* zero would mean: none */
}

static size_t put_datagram(struct injector *in, unsigned char *at, const struct end *from,
			   const struct end *to, const Reprise__InetDatagram *d)
{
	struct udphdr h = {.source = from->port, .dest = to->port};
	size_t len = sizeof(h) + d->data.len;

	/* Of UDP-Lite this is how much is summed up; 0: all */
	h.len = in->protocol == IPPROTO_UDP ? htons((uint16_t)len) : 0;
	memcpy(at, &h, sizeof(h));
	if (d->data.len)
		memcpy(at + sizeof(h), d->data.data, d->data.len);
	h.check = checksum(from, to, in->protocol, at, len);
	memcpy(at, &h, sizeof(h));
	return len;
}

static int send_v4(struct injector *in, const struct end *from, const struct end *to,
		   const Reprise__InetDatagram *d)
{
	const struct sockaddr_in route = {.sin_family = AF_INET,
					  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct iphdr h = {.version = 4,
			  .ihl = sizeof(h) / 4,
			  .tos = (uint8_t)d->tos,
			  .id = htons(NONCE),
			  .ttl = (uint8_t)(d->ttl ?: DEFAULT_TTL),
			  .protocol = (uint8_t)in->protocol,
			  .saddr = from->v4.s_addr,
			  .daddr = to->v4.s_addr};
	size_t len = sizeof(h) + put_datagram(in, in->packet + sizeof(h), from, to, d);

	/* The kernel fills in the length and the checksum. */
	memcpy(in->packet, &h, sizeof(h));
	return sendto(in->raw4, in->packet, len, 0, (const struct sockaddr *)&route,
		      sizeof(route)) < 0
		       ? -errno
		       : 0;
}

static int send_v6(struct injector *in, const struct end *from, const struct end *to,
		   const Reprise__InetDatagram *d)
{
	const struct sockaddr_in6 route = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
	struct ip6_hdr h = {};
	size_t len = put_datagram(in, in->packet + sizeof(h), from, to, d);

	h.ip6_flow = htonl(6u << 28 | (uint32_t)d->tos << 20 | NONCE);
	h.ip6_plen = htons((uint16_t)len);
	h.ip6_nxt = (uint8_t)in->protocol;
	h.ip6_hlim = (uint8_t)(d->ttl ?: DEFAULT_TTL);
	h.ip6_src = from->six;
	h.ip6_dst = to->six;
	memcpy(in->packet, &h, sizeof(h));
	return sendto(in->raw6, in->packet, sizeof(h) + len, 0, (const struct sockaddr *)&route,
		      sizeof(route)) < 0
		       ? -errno
		       : 0;
}

/* ---- without privilege ---- */

static void add_control(struct msghdr *msg, int level, int type, const void *value, size_t len)
{
	struct cmsghdr *c = (struct cmsghdr *)((char *)msg->msg_control + msg->msg_controllen);

	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), value, len);
	msg->msg_controllen += CMSG_SPACE(len);
}

/* The source, for a sender that is bound to no address; and the fields of the header. */
static void make_control(struct msghdr *msg, const struct end *from, const Reprise__InetDatagram *d)
{
	struct in_pktinfo source4 = {.ipi_spec_dst = from->v4};
	struct in6_pktinfo source6 = {.ipi6_addr = from->six};
	int ttl = (int)d->ttl, tos = (int)d->tos;

	if (from->v6) {
		add_control(msg, IPPROTO_IPV6, IPV6_PKTINFO, &source6, sizeof(source6));
		add_control(msg, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof(tos));
		if (ttl)
			add_control(msg, IPPROTO_IPV6, IPV6_HOPLIMIT, &ttl, sizeof(ttl));
		return;
	}
	add_control(msg, IPPROTO_IP, IP_PKTINFO, &source4, sizeof(source4));
	add_control(msg, IPPROTO_IP, IP_TOS, &tos, sizeof(tos));
	if (ttl)
		add_control(msg, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl));
}

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static socklen_t address_of(const struct end *x, union address *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (x->v6) {
		ret->in6.sin6_family = AF_INET6;
		ret->in6.sin6_addr = x->six;
		ret->in6.sin6_port = x->port;
		return sizeof(ret->in6);
	}
	ret->in.sin_family = AF_INET;
	ret->in.sin_addr = x->v4;
	ret->in.sin_port = x->port;
	return sizeof(ret->in);
}

/* A socket of the tree may have the address already. */
static int sender_socket(struct injector *in, const struct end *from, int *ret_own)
{
	_cleanup_(close_fd) int own =
		socket(from->v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, in->protocol);
	union address at;
	socklen_t len = address_of(from, &at);
	ProtobufCBinaryData wanted = {.data = (uint8_t *)&at, .len = len};
	int fd;

	if (own < 0)
		return -errno;
	if (bind(own, &at.any, len) == 0)
		return *ret_own = take_fd(&own);
	if (errno != EADDRINUSE)
		return -errno;
	fd = in->other(in->arg, &wanted);
	return fd < 0 ? -EADDRINUSE : fd;
}

static int send_plainly(struct injector *in, const struct end *from, const struct end *to,
			const Reprise__InetDatagram *d)
{
	_cleanup_(close_fd) int own = -EBADF;
	char control[256] __attribute__((aligned(8))) = {};
	struct iovec iov = {.iov_base = d->data.data, .iov_len = d->data.len};
	union address at;
	struct msghdr msg = {.msg_name = &at,
			     .msg_namelen = address_of(to, &at),
			     .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control};
	int fd = sender_socket(in, from, &own);

	if (fd < 0)
		return fd;
	make_control(&msg, from, d);
	return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* ---- one at a time ---- */

static uint32_t memory_of(int fd)
{
	uint32_t info[SK_MEMINFO_VARS] = {};
	socklen_t len = sizeof(info);

	return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) < 0 ? 0
								      : info[SK_MEMINFO_RMEM_ALLOC];
}

/* It is there when sendto() returns, unless the machine hands packets to another processor. */
static int wait_for_arrival(int fd, uint32_t before)
{
	for (int i = 0; memory_of(fd) <= before; i++) {
		if (i >= PATIENCE_MS)
			return -ETIMEDOUT;
		patience_pause();
	}
	return 0;
}

static void format_end(const struct end *x, char *buf, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";

	inet_ntop(x->v6 ? AF_INET6 : AF_INET, &x->six, host, sizeof(host));
	snprintf(buf, size, x->v6 ? "[%s]:%u" : "%s:%u", host, ntohs(x->port));
}

int inject(struct injector *in, const Reprise__InetDatagram *d, struct error *e)
{
	struct end from = end_of(&d->sender), to = destination_of(in, d, from.v6);
	uint32_t before = memory_of(in->fd);
	char text[80];
	int r;

	if ((from.v6 ? in->raw6 : in->raw4) < 0)
		r = send_plainly(in, &from, &to, d);
	else if (from.v6)
		r = send_v6(in, &from, &to, d);
	else
		r = send_v4(in, &from, &to, d);
	format_end(&from, text, sizeof(text));
	if (r < 0)
		return error_errno(e, r, in->raw4 < 0 ? E_CREDENTIALS : E_RESTORE,
				   "cannot put a datagram from %s into its queue", text);
	r = wait_for_arrival(in->fd, before);
	if (r < 0)
		return error_set(e, r, E_RESTORE,
				 "a datagram from %s did not get into its queue: a packet filter "
				 "on the loopback device, or too small a buffer",
				 text);
	return 0;
}

/* ---- begin and end ---- */

/* Only what bears our mark comes in. */
static int keep_others_out(int fd)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (uint32_t)SKF_NET_OFF),
		BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 6, 0, 2),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, (uint32_t)SKF_NET_OFF + FLOW_LABEL_LOW),
		BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, (uint32_t)SKF_NET_OFF + IPV4_ID),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NONCE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno
											   : 0;
}

/* Whoever sends gets a port, also when the destination (port 0) is not valid. */
static int take_port(struct injector *in)
{
	const struct sockaddr_in to4 = {.sin_family = AF_INET,
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
	struct sockaddr_in6 at = {};
	socklen_t len = sizeof(at);

	if (in->family == AF_INET)
		ignore((int)sendto(in->fd, "", 0, 0, (const struct sockaddr *)&to4, sizeof(to4)),
		       "EINVAL is expected");
	else
		ignore((int)sendto(in->fd, "", 0, 0, (const struct sockaddr *)&to6, sizeof(to6)),
		       "EINVAL is expected");
	if (getsockname(in->fd, (struct sockaddr *)&at, &len) < 0)
		return -errno;
	in->port = at.sin6_port; /* at the same place in sockaddr_in */
	return in->port ? 0 : -EADDRNOTAVAIL;
}

int injector_new(struct injector **ret, int fd, const Reprise__Socket *m,
		 int (*other)(void *arg, const ProtobufCBinaryData *address), void *arg,
		 struct error *e)
{
	struct injector *in = calloc(1, sizeof(*in));
	int r;

	if (!in)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for datagrams");
	*ret = in;
	in->fd = fd;
	in->family = m->family;
	in->protocol = m->protocol ?: IPPROTO_UDP;
	in->other = other;
	in->arg = arg;
	in->raw4 = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	in->raw6 = m->family == AF_INET6 ? socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)
					 : -EBADF;
	r = in->raw4 < 0 ? 0 : keep_others_out(fd);
	if (r >= 0)
		r = take_port(in);
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot prepare a socket for its queue") : 0;
}

int injector_release(struct injector *in, struct error *e)
{
	const struct sockaddr none = {.sa_family = AF_UNSPEC};
	int unused = 0;

	/* Frees a port that nobody asked for (__udp_disconnect()). */
	if (connect(in->fd, &none, sizeof(none)) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot free the port of a socket");
	if (in->raw4 >= 0 &&
	    setsockopt(in->fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused)) < 0)
		return error_errno(e, -errno, E_RESTORE, "SO_DETACH_FILTER");
	return 0;
}

void injector_free(struct injector **in)
{
	if (!*in)
		return;
	close_fd(&(*in)->raw4);
	close_fd(&(*in)->raw6);
	free(*in);
	*in = NULL;
}
