/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets that wait in raw sockets, and answers in those of ICMP ("ping"). Only the first can be
 * peeked at, so all are read in the memory of the kernel, with the IP header in front. At the
 * restart each is sent over the loopback device as it was (see inet_inject.c), by a gate that leads
 * to its socket alone.
 *
 * The kernel's own protocols must not take it for news, either. Of IPv4 it is sent as if to
 * all, which ICMP ignores (icmp_rcv(), icmp_echo_ignore_broadcasts) and nobody answers; of
 * IPv6 rules of IPsec keep it from them. Those protocols that would
 * act nevertheless are refused. An answer to a ping comes to its socket by ICMP itself, which does
 * nothing else with it.
 */
#include "net/raw_queue.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "core/cleanup.h"
#include "core/patience.h"
#include "core/procfs.h"
#include "net/gate.h"
#include "net/inet.h"
#include "net/inet_queue.h"
#include "net/kernel_sock.h"
#include "net/raw_packet.h"

#define PACKETS_MAX    4096
#define LOOPBACK_INDEX 1 /* the kernel's LOOPBACK_IFINDEX, in every network namespace */

/* ---- checkpoint ---- */

struct places {
	int queue, next, qlen, skb_next, data, data_len, head, tail, network, interface, cb;
};

struct reader {
	struct kernel_memory *k;
	struct places at;
	const Reprise__Socket *m;
	struct scratch *s;
	bool outside; /* one came by another interface than the loopback device */
	bool other_destination;
};

static int too_odd(const char *what, struct error *e)
{
	return error_set(e, -EBUSY, E_FILE_STATE,
			 "packets wait there of which one cannot be sent again as it was: %s; try "
			 "again when it has been read",
			 what);
}

static int find_places(struct kernel_memory *k, struct places *p)
{
	const struct kernel_place list[] = {
		{&p->queue, "sock", "sk_receive_queue"},
		{&p->next, "sk_buff_head", "next"},
		{&p->qlen, "sk_buff_head", "qlen"},
		{&p->skb_next, "sk_buff", "next"},
		{&p->data, "sk_buff", "data"},
		{&p->data_len, "sk_buff", "data_len"},
		{&p->head, "sk_buff", "head"},
		{&p->tail, "sk_buff", "tail"},
		{&p->network, "sk_buff", "network_header"},
		{&p->interface, "sk_buff", "skb_iif"},
		{&p->cb, "sk_buff", "cb"},
	};

	return kernel_places(k, list, sizeof(list) / sizeof(list[0]));
}

static int get(const struct reader *rd, uint64_t from, int offset, void *buf, size_t len)
{
	return kernel_read(rd->k, from + (uint64_t)offset, buf, len);
}

/* What an sk_buff tells of a packet that lies in one piece. */
struct piece {
	uint64_t data, head;
	uint32_t data_len, tail;
	int32_t interface;
	uint16_t network;
	struct in_pktinfo info; /* of IPv4, where the socket asks (ipv4_pktinfo_prepare()) */
};

static int read_piece(const struct reader *rd, uint64_t skb, struct piece *p)
{
	int r = get(rd, skb, rd->at.data, &p->data, sizeof(p->data));

	if (r >= 0)
		r = get(rd, skb, rd->at.head, &p->head, sizeof(p->head));
	if (r >= 0)
		r = get(rd, skb, rd->at.data_len, &p->data_len, sizeof(p->data_len));
	if (r >= 0)
		r = get(rd, skb, rd->at.tail, &p->tail, sizeof(p->tail));
	if (r >= 0)
		r = get(rd, skb, rd->at.network, &p->network, sizeof(p->network));
	if (r >= 0)
		r = get(rd, skb, rd->at.interface, &p->interface, sizeof(p->interface));
	return r < 0 ? r : get(rd, skb, rd->at.cb, &p->info, sizeof(p->info));
}

static int read_packet(struct reader *rd, uint64_t skb, Reprise__InetDatagram **ret,
		       struct error *e)
{
	Reprise__InetDatagram *d =
		scratch_message(rd->s, Reprise__InetDatagram, reprise__inet_datagram__init);
	struct piece p;
	const char *odd;
	size_t len;

	if (read_piece(rd, skb, &p) < 0)
		return error_set(e, -EFAULT, E_FILE_STATE,
				 "packets wait there, and cannot be read");
	if (p.data_len)
		return too_odd("it lies in memory that cannot be read", e);
	if (p.tail <= p.network || p.tail - p.network > RAW_PACKET_MAX)
		return too_odd("it is too long", e);
	len = p.tail - p.network;
	if (d)
		d->packet.data = scratch_alloc(rd->s, len);
	if (!d || !d->packet.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for packets");
	d->packet.len = len;
	if (kernel_read(rd->k, p.head + p.network, d->packet.data, len) < 0)
		return error_set(e, -EFAULT, E_FILE_STATE,
				 "packets wait there, and cannot be read");
	odd = raw_packet_odd(rd->m, &d->packet);
	/* Where what the application sees begins. */
	if (!odd && rd->m->family == AF_INET6 &&
	    p.data != p.head + p.network + sizeof(struct ip6_hdr))
		odd = "it has other headers in front";
	if (odd)
		return too_odd(odd, e);
	rd->outside |= p.interface != LOOPBACK_INDEX;
	rd->other_destination |= rd->m->family == AF_INET &&
				 memcmp(d->packet.data + offsetof(struct iphdr, daddr),
					&p.info.ipi_spec_dst, sizeof(p.info.ipi_spec_dst)) != 0;
	*ret = d;
	return 0;
}

/* What the socket asks for that would be told otherwise of a packet that was sent again. */
static int check_questions(const struct reader *rd, struct error *e)
{
	for (size_t i = 0; i < rd->m->n_options; i++) {
		const Reprise__SocketOption *o = rd->m->options[i];
		const int name = o->name;

		if (o->level == SOL_SOCKET &&
		    (name == SO_TIMESTAMP || name == SO_TIMESTAMPNS || name == SO_TIMESTAMPING ||
		     (name >= 63 && name <= 65) /* the same with other structures */))
			return too_odd("the socket asks when they came (SO_TIMESTAMP)", e);
		if (o->level == SOL_SOCKET &&
		    (name == SO_RXQ_OVFL || name == SO_WIFI_STATUS || name == SO_PASSSEC ||
		     name == 75 /* SO_RCVMARK */ || name == 82 /* SO_RCVPRIORITY */))
			return too_odd("the socket asks for marks, or a count of losses", e);
		if (o->level == IPPROTO_IP &&
		    (name == IP_PASSSEC || name == IP_CHECKSUM || name == IP_RECVFRAGSIZE))
			return too_odd("the socket asks for labels, sums or fragments", e);
		if (o->level == IPPROTO_IPV6 && name == IPV6_RECVFRAGSIZE)
			return too_odd("the socket asks for fragments", e);
		if (o->level == IPPROTO_IP && name == IP_PKTINFO && rd->m->family == AF_INET &&
		    (rd->outside || rd->other_destination || !inet_is_ping(rd->m)))
			return too_odd("the socket asks where they came (IP_PKTINFO)", e);
		if (o->level == IPPROTO_IPV6 && rd->outside &&
		    (name == IPV6_RECVPKTINFO || name == IPV6_2292PKTINFO))
			return too_odd("the socket asks where they came (IPV6_PKTINFO)", e);
		if (inet_is_ping(rd->m) && o->level == SOL_SOCKET && name == SO_BINDTODEVICE)
			return too_odd("the socket is bound to a device", e);
	}
	return 0;
}

/* The address alone tells no interface then. */
static bool any_link_local(const Reprise__InetDatagram *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct ip6_hdr h;

		memcpy(&h, list[i]->packet.data, sizeof(h));
		if (IN6_IS_ADDR_LINKLOCAL(&h.ip6_src))
			return true;
	}
	return false;
}

static int walk(struct reader *rd, int fd, Reprise__InetSocket *m, struct error *e)
{
	uint64_t head = 0, skb = 0;
	uint32_t n = 0;
	int r = kernel_sock(rd->k, fd, &head);

	head += (uint64_t)rd->at.queue;
	if (r >= 0)
		r = get(rd, head, rd->at.qlen, &n, sizeof(n));
	if (r >= 0)
		r = get(rd, head, rd->at.next, &skb, sizeof(skb));
	if (r < 0)
		return error_set(e, r, E_FILE_STATE, "packets wait there, and cannot be read");
	if (n > PACKETS_MAX)
		return too_odd("there are too many of them", e);
	m->queue = scratch_alloc(rd->s, (n + 1) * sizeof(*m->queue));
	if (!m->queue)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for packets");
	/* More may come behind them meanwhile. */
	for (m->n_queue = 0; m->n_queue < n && skb != head && r >= 0;) {
		r = read_packet(rd, skb, &m->queue[m->n_queue], e);
		if (r < 0)
			return r;
		m->n_queue++;
		r = get(rd, skb, rd->at.skb_next, &skb, sizeof(skb));
	}
	if (r < 0 || m->n_queue < n)
		return error_set(e, -EIO, E_FILE_STATE, "packets wait there, and cannot be read");
	return 0;
}

static int check_system(struct checkpoint *c, const Reprise__Socket *m, struct error *e)
{
	_cleanup_(free_ptr) char *text = NULL;
	struct error ignored = {};

	if (!raw_protocol_harmless(m))
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "it holds packets that have not been read yet, of protocol %d, "
				 "which the kernel would take itself if they were sent again; try "
				 "again",
				 m->protocol);
	if (m->type == SOCK_RAW && m->family == AF_INET && m->protocol == IPPROTO_ICMP &&
	    procfs_read(c->proc_fd, &text, &ignored, "sys/net/ipv4/icmp_echo_ignore_broadcasts") >
		    0 &&
	    text[0] == '0')
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "it holds packets that have not been read yet, which the kernel "
				 "would answer if they were sent again "
				 "(net.ipv4.icmp_echo_ignore_broadcasts is 0); try again");
	if (gate_probe(m->family == AF_INET6 && !inet_is_ping(m)) < 0)
		return error_set(
			e, -EBUSY, E_FILE_STATE,
			"it holds packets that have not been read yet, which cannot be led "
			"to it alone here (that takes root, control groups of version 2 "
			"with BPF and, of IPv6, IPsec); try again");
	if (inet_is_ping(m) && m->program)
		return too_odd("a BPF program is attached to the socket", e);
	return 0;
}

static int read_queue(struct checkpoint *c, struct reader *rd, int fd, Reprise__InetSocket *m,
		      struct error *e)
{
	int r = check_system(c, m->socket, e);

	if (r >= 0)
		r = walk(rd, fd, m, e);
	if (r >= 0)
		r = check_questions(rd, e);
	if (r >= 0 && rd->outside && m->socket->family == AF_INET6 &&
	    any_link_local((const Reprise__InetDatagram *const *)m->queue, m->n_queue))
		r = too_odd("it came from a link-local address", e);
	return r;
}

int raw_queue_save(struct checkpoint *c, int fd, Reprise__InetSocket *m, struct scratch *s,
		   struct error *e)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct reader rd = {.m = m->socket, .s = s};
	int r;

	if (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLIN | POLLERR)))
		return 0;
	if (p.revents & POLLERR)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "an error, or a notice about what it has sent, has not been read "
				 "there yet; try again");
	if (kernel_sock_memory(c, &rd.k) < 0 || find_places(rd.k, &rd.at) < 0)
		return error_set(e, -EBUSY, E_FILE_STATE,
				 "it holds packets that have not been read yet, which only root "
				 "can see (a kernel with BTF, 6.1); try again");
	r = read_queue(c, &rd, fd, m, e);
	/* An application that runs may have taken one while it was read. */
	if (r < 0 && c->checking) {
		error_clear(e);
		rd.outside = rd.other_destination = false;
		r = poll(&p, 1, 0) > 0 && p.revents & POLLIN ? read_queue(c, &rd, fd, m, e) : 0;
	}
	return r;
}

/* ---- restart ---- */

int raw_queue_validate(const Reprise__InetSocket *m, struct error *e)
{
	bool good = m->n_queue <= PACKETS_MAX && raw_protocol_harmless(m->socket);

	for (size_t i = 0; good && i < m->n_queue; i++)
		good = !raw_packet_odd(m->socket, &m->queue[i]->packet);
	return good || !m->n_queue ? 0
				   : error_set(e, -EBADMSG, E_IMAGE_INVALID,
					       "an improper packet in the queue of a socket");
}

/* Nothing, but what bears a mark. */
static int attach(int fd, uint32_t mark)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_MARK)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, mark, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (!mark)
		program = (struct sock_fprog){.len = 1, .filter = &code[3]};
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno
											   : 0;
}

int raw_queue_shut(int fd, const Reprise__InetSocket *m, struct error *e)
{
	char byte;

	if (m->socket->type != SOCK_RAW)
		return 0;
	if (attach(fd, 0) < 0)
		return error_errno(e, -errno, E_RESTORE, "SO_ATTACH_FILTER");
	/* What has come before. */
	while (recv(fd, &byte, sizeof(byte), MSG_DONTWAIT | MSG_TRUNC) >= 0)
		;
	return 0;
}

int raw_queue_unshut(int fd, const Reprise__InetSocket *m, struct error *e)
{
	int unused = 0;

	/* One of its own has taken the place. */
	if (m->socket->type != SOCK_RAW || m->socket->filter.len || m->socket->program)
		return 0;
	if (setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused)) < 0)
		return error_errno(e, -errno, E_RESTORE, "SO_DETACH_FILTER");
	return 0;
}

struct sender {
	int fd; /* that of the queue */
	int raw, gate, policy;
	bool to_all;
	uint32_t mark;
};

static uint32_t memory_of(int fd)
{
	uint32_t info[SK_MEMINFO_VARS] = {};
	socklen_t len = sizeof(info);

	return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) < 0 ? 0
								      : info[SK_MEMINFO_RMEM_ALLOC];
}

static int send_one(const struct sender *x, const ProtobufCBinaryData *packet)
{
	const struct sockaddr_in to4 = {.sin_family = AF_INET,
					.sin_addr.s_addr =
						htonl(x->to_all ? 0x7fffffff : INADDR_LOOPBACK)};
	const struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
	const bool v6 = packet->data[0] >> 4 == 6;
	uint32_t before = memory_of(x->fd);

	if (sendto(x->raw, packet->data, packet->len, 0,
		   v6 ? (const struct sockaddr *)&to6 : (const struct sockaddr *)&to4,
		   v6 ? sizeof(to6) : sizeof(to4)) < 0)
		return -errno;
	for (int i = 0; memory_of(x->fd) <= before; i++) {
		if (i >= PATIENCE_MS)
			return -ETIMEDOUT;
		patience_pause();
	}
	return 0;
}

static int open_sender(struct sender *x, const Reprise__Socket *m)
{
	const bool v6 = m->family == AF_INET6;
	int on = 1, r;

	x->raw = socket(m->family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (x->raw < 0)
		return -errno;
	if (setsockopt(x->raw, SOL_SOCKET, SO_MARK, &x->mark, sizeof(x->mark)) < 0 ||
	    setsockopt(x->raw, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on)) < 0)
		return -errno;
	x->gate = gate_open(x->fd, x->mark);
	if (x->gate < 0)
		return x->gate;
	x->to_all = !v6 && !inet_is_ping(m);
	if (v6 && !inet_is_ping(m)) {
		r = gate_block_v6(x->fd, x->mark);
		if (r < 0)
			return r;
		x->policy = r;
	}
	return attach(x->fd, x->mark);
}

static void close_sender(struct sender *x)
{
	gate_unblock_v6(&x->policy, x->fd, x->mark);
	close_fd(&x->gate);
	close_fd(&x->raw);
}

static size_t room_for(const Reprise__InetSocket *m)
{
	size_t sum = 0;

	/* As of datagrams (inet_queue.c). */
	for (size_t i = 0; i < m->n_queue; i++)
		sum += 2 * m->queue[i]->packet.len + 4096;
	return sum;
}

static int fill(struct sender *x, const Reprise__InetSocket *m, struct error *e)
{
	int r = open_sender(x, m->socket);

	if (r < 0)
		return error_errno(e, r, r == -EPERM ? E_CREDENTIALS : E_RESTORE,
				   "cannot prepare a socket for the packets that waited there");
	for (size_t i = 0; i < m->n_queue && r >= 0; i++)
		r = send_one(x, &m->queue[i]->packet);
	if (r == -ETIMEDOUT)
		return error_set(e, r, E_RESTORE,
				 "a packet did not get into its queue: a packet filter on the "
				 "loopback device, or too small a buffer");
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot put a packet into its queue") : 0;
}

/* What was attached before the queue was filled; a raw socket stays shut. */
static int attach_again(int fd, const Reprise__Socket *m)
{
	struct sock_fprog own = {.len = (unsigned short)(m->filter.len / sizeof(*own.filter)),
				 .filter = (struct sock_filter *)m->filter.data};
	int unused = 0;

	if (m->type == SOCK_RAW)
		return attach(fd, 0);
	return setsockopt(fd, SOL_SOCKET, own.len ? SO_ATTACH_FILTER : SO_DETACH_FILTER,
			  own.len ? (void *)&own : (void *)&unused,
			  own.len ? sizeof(own) : sizeof(unused)) < 0
		       ? -errno
		       : 0;
}

int raw_queue_fill(int fd, const Reprise__InetSocket *m, struct error *e)
{
	struct sender x = {
		.fd = fd, .raw = -EBADF, .gate = -EBADF, .policy = -EBADF, .mark = gate_mark()};
	int was, r;

	if (!m->n_queue)
		return 0;
	was = buffer_widen(fd, room_for(m));
	r = fill(&x, m, e);
	close_sender(&x);
	buffer_narrow(fd, was);
	if (r < 0)
		return r;
	r = attach_again(fd, m->socket);
	return r < 0 ? error_errno(e, r, E_RESTORE, "SO_ATTACH_FILTER") : 0;
}
