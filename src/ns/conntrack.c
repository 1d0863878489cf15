/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/conntrack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/nfnl.h"
#include "net/rtnl.h"

#define BIT(n)	     (UINT64_C(1) << (n))
#define FIXED	     sizeof(struct nfgenmsg)
#define SUBSYSTEM(x) (NFNL_SUBSYS_CTNETLINK << 8 | (x))
#define ENTRY_MAX    4096
#define ENTRIES_MAX  1000000
#define AT_ONCE	     64 /* messages */

/* What makes one; the rest is of the moment, or counted anew. */
#define KEPT                                                                                 \
	(BIT(CTA_TUPLE_ORIG) | BIT(CTA_TUPLE_REPLY) | BIT(CTA_STATUS) | BIT(CTA_PROTOINFO) | \
	 BIT(CTA_HELP) | BIT(CTA_TIMEOUT) | BIT(CTA_MARK) | BIT(CTA_TUPLE_MASTER) |          \
	 BIT(CTA_SEQ_ADJ_ORIG) | BIT(CTA_SEQ_ADJ_REPLY) | BIT(CTA_ZONE) | BIT(CTA_LABELS) |  \
	 BIT(CTA_SYNPROXY))

struct look {
	VEC(ProtobufCBinaryData) list;
	struct scratch *s;
};

/* ---- checkpoint ---- */

static int take(void *arg, const struct nlmsghdr *h)
{
	struct look *l = arg;
	const uint8_t *body = NLMSG_DATA(h);
	const size_t len = NLMSG_PAYLOAD(h, 0);
	struct rtnl_walk w = {body + FIXED, len - FIXED};
	const struct rtattr *a;
	ProtobufCBinaryData *slot;

	if (len > ENTRY_MAX || !rtnl_valid(body, len, FIXED))
		return -EPROTO;
	slot = vec_push(&l->list);
	if (!slot || l->list.n > ENTRIES_MAX)
		return slot ? -E2BIG : -ENOMEM;
	slot->data = scratch_alloc(l->s, NLMSG_ALIGN(len));
	if (!slot->data)
		return -ENOMEM;
	memcpy(slot->data, body, FIXED);
	slot->len = FIXED;
	while ((a = rtnl_next(&w))) {
		if (!(KEPT & BIT(a->rta_type & 63)))
			continue;
		memcpy(slot->data + slot->len, a, a->rta_len);
		slot->len += RTA_ALIGN(a->rta_len);
	}
	return 0;
}

/* Asking the kernel for them loads a module; this file is there once it is loaded. */
static bool are_there_any(int proc_fd)
{
	static const char path[] = "/proc/sys/net/netfilter/nf_conntrack_count";
	_cleanup_(close_fd) int fd =
		openat(proc_fd < 0 ? AT_FDCWD : proc_fd,
		       proc_fd < 0 ? path : path + strlen("/proc/"), O_RDONLY | O_CLOEXEC);
	char first;

	return fd >= 0 && read(fd, &first, 1) == 1 && first != '0';
}

int conntrack_checkpoint(int proc_fd, Reprise__Network *m, struct scratch *s, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	const struct nfgenmsg all = {};
	struct look l = {.s = s};
	int r = 0;

	if (!are_there_any(proc_fd))
		return 0;
	fd = nfnl_open();
	if (fd < 0)
		return error_errno(e, fd, E_SYSTEM, "cannot ask about tracked connections");
	for (int i = 0; i < 10; i++) {
		l.list.n = 0;
		r = rtnl_dump(fd, SUBSYSTEM(IPCTNL_MSG_CT_GET), &all, sizeof(all), take, &l);
		if (r != -EAGAIN)
			break;
	}
	if (r >= 0 && l.list.n) {
		m->conntrack = scratch_copy(s, l.list.v, l.list.n * sizeof(*l.list.v));
		m->n_conntrack = m->conntrack ? l.list.n : 0;
		r = m->conntrack ? 0 : -ENOMEM;
	}
	vec_free(&l.list);
	return r < 0 ? error_errno(e, r, E_SYSTEM, "cannot list the tracked connections") : 0;
}

/* ---- restart ---- */

int conntrack_validate(const Reprise__Network *m, struct error *e)
{
	for (size_t i = 0; i < m->n_conntrack; i++)
		if (m->n_conntrack > ENTRIES_MAX || m->conntrack[i].len > ENTRY_MAX ||
		    !rtnl_valid(m->conntrack[i].data, m->conntrack[i].len, FIXED))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "an impossible tracked connection");
	return 0;
}

/* An attribute in nested ones, by its path; of a copy, which may be changed. */
struct part {
	void *data;
	size_t len;
};

static struct part part_of(struct part in, uint16_t type)
{
	struct part ret = {};

	if (in.data)
		ret.data = (void *)rtnl_find(in.data, in.len, 0, type, &ret.len);
	return ret;
}

/* What a packet of one direction is recognised by. */
struct side {
	struct part src, dst; /* addresses */
	struct part sport, dport, id;
	bool v6;
};

static struct side side_of(struct part body, uint16_t type)
{
	const struct part tuple = part_of(body, type), ip = part_of(tuple, CTA_TUPLE_IP),
			  proto = part_of(tuple, CTA_TUPLE_PROTO);
	struct side ret = {.v6 = part_of(ip, CTA_IP_V6_SRC).data};

	ret.src = part_of(ip, ret.v6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC);
	ret.dst = part_of(ip, ret.v6 ? CTA_IP_V6_DST : CTA_IP_V4_DST);
	ret.sport = part_of(proto, CTA_PROTO_SRC_PORT);
	ret.dport = part_of(proto, CTA_PROTO_DST_PORT);
	ret.id = part_of(proto, CTA_PROTO_ICMP_ID);
	if (!ret.id.data)
		ret.id = part_of(proto, CTA_PROTO_ICMPV6_ID);
	return ret;
}

static bool differ(struct part a, struct part b)
{
	return a.data && b.data && a.len == b.len && memcmp(a.data, b.data, a.len) != 0;
}

static void set(struct part to, struct part from)
{
	if (to.data && from.data && to.len == from.len)
		memcpy(to.data, from.data, to.len);
}

/* Into which address and port those of a packet are changed (nfnetlink_parse_nat_setup()). */
static void put_nat(struct nfnl_batch *b, uint16_t type, bool v6, struct part ip, struct part port)
{
	struct rtnl_message m;
	struct {
		struct rtattr a;
		uint16_t port, zero;
	} from = {.a = {RTA_LENGTH(sizeof(uint16_t)), CTA_PROTONAT_PORT_MIN}};

	rtnl_begin(&m, 0, 0, "", 0);
	rtnl_attribute(&m, v6 ? CTA_NAT_V6_MINIP : CTA_NAT_V4_MINIP, ip.data, ip.len);
	if (port.data && port.len == sizeof(from.port)) {
		memcpy(&from.port, port.data, port.len);
		rtnl_attribute(&m, CTA_NAT_PROTO | NLA_F_NESTED, &from, sizeof(from));
	}
	nfnl_attribute(b, type | NLA_F_NESTED, m.bytes + NLMSG_HDRLEN, NLMSG_PAYLOAD(&m.header, 0));
}

/*
 * An entry with translated addresses is made as it began, with a reply that goes back to where the
 * first packet came from, and is then translated: nothing else makes the kernel do this.
 */
static void translate(struct nfnl_batch *b, struct part body, uint32_t status)
{
	const struct side first = side_of(body, CTA_TUPLE_ORIG);
	struct side reply = side_of(body, CTA_TUPLE_REPLY);
	uint8_t copy[4][16];
	struct part *const parts[] = {&reply.src, &reply.dst, &reply.sport, &reply.dport};
	struct part was[4], id = reply.id;
	uint16_t id_was = 0;

	for (int i = 0; i < 4; i++) {
		was[i] = (struct part){copy[i], parts[i]->len};
		if (!parts[i]->data || parts[i]->len > sizeof(copy[i]))
			was[i].data = NULL;
		else
			memcpy(copy[i], parts[i]->data, parts[i]->len);
	}
	if (id.data && id.len == sizeof(id_was)) {
		memcpy(&id_was, id.data, sizeof(id_was));
		was[2] = was[3] = (struct part){&id_was, sizeof(id_was)};
	}
	set(reply.src, first.dst);
	set(reply.dst, first.src);
	set(reply.sport, first.dport);
	set(reply.dport, first.sport);
	set(reply.id, first.id);
	nfnl_message(b, SUBSYSTEM(IPCTNL_MSG_CT_NEW), NLM_F_CREATE | NLM_F_EXCL,
		     (char *)body.data - FIXED, body.len + FIXED);
	if (status & IPS_DST_NAT && was[0].data)
		put_nat(b, CTA_NAT_DST, first.v6, was[0], was[2]);
	if (status & IPS_SRC_NAT && was[1].data)
		put_nat(b, CTA_NAT_SRC, first.v6, was[1], was[3]);
}

/* Flags are told without what says that they are meant (tcp_to_nlattr(), nlattr_to_tcp()). */
static void mean_flags(struct part body, uint16_t type)
{
	const struct part tcp = part_of(part_of(body, CTA_PROTOINFO), CTA_PROTOINFO_TCP),
			  flags = part_of(tcp, type);

	if (flags.data && flags.len >= sizeof(struct nf_ct_tcp_flags))
		((struct nf_ct_tcp_flags *)flags.data)->mask = 0xff;
}

static void say(struct nfnl_batch *b, const ProtobufCBinaryData *entry)
{
	uint8_t copy[ENTRY_MAX + 4] __attribute__((aligned(4)));
	const struct part body = {copy + FIXED, entry->len - FIXED};
	struct part status;
	uint32_t value = 0;

	memcpy(copy, entry->data, entry->len);
	mean_flags(body, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL);
	mean_flags(body, CTA_PROTOINFO_TCP_FLAGS_REPLY);
	status = part_of(body, CTA_STATUS);
	if (status.data && status.len == sizeof(value)) {
		/* That one follows from another the kernel knows from CTA_TUPLE_MASTER. */
		memcpy(&value, status.data, sizeof(value));
		value = ntohl(value) & ~(uint32_t)IPS_EXPECTED;
		*(uint32_t *)status.data = htonl(value);
	}
	if (value & (IPS_SRC_NAT | IPS_DST_NAT))
		translate(b, body, value);
	else
		nfnl_message(b, SUBSYSTEM(IPCTNL_MSG_CT_NEW), NLM_F_CREATE | NLM_F_EXCL, copy,
			     entry->len);
}

/* Of an address that a copy beside the original has not: its peer does not know the copy. */
static bool is_of_original(const struct restart *r, const ProtobufCBinaryData *entry)
{
	const struct part body = {entry->data + FIXED, entry->len - FIXED};
	const struct side sides[] = {side_of(body, CTA_TUPLE_ORIG), side_of(body, CTA_TUPLE_REPLY)};

	vec_for_each (a, &r->addresses)
		for (int i = 0; i < 2; i++) {
			const struct part from = {(void *)&a->from, sizeof(a->from)};

			if ((sides[i].src.data && sides[i].src.len == from.len &&
			     !differ(sides[i].src, from)) ||
			    (sides[i].dst.data && sides[i].dst.len == from.len &&
			     !differ(sides[i].dst, from)))
				return true;
		}
	return false;
}

struct failures {
	size_t n;
	int last;
};

static void count(void *arg, uint32_t message, int error)
{
	struct failures *f = arg;

	(void)message;
	f->n++;
	f->last = error;
}

static int send_all(int fd, const struct restart *r, const Reprise__Network *m, bool dependent,
		    struct failures *f)
{
	struct nfnl_batch b = {};
	int res = 0;

	for (size_t i = 0; i < m->n_conntrack && res >= 0; i++) {
		const ProtobufCBinaryData *entry = &m->conntrack[i];
		size_t n;

		if (dependent !=
			    !!rtnl_find(entry->data, entry->len, FIXED, CTA_TUPLE_MASTER, &n) ||
		    is_of_original(r, entry))
			continue;
		say(&b, entry);
		if (b.n < AT_ONCE)
			continue;
		res = nfnl_send(fd, &b, count, f);
		nfnl_batch_free(&b);
	}
	if (res >= 0 && b.n)
		res = nfnl_send(fd, &b, count, f);
	nfnl_batch_free(&b);
	return res;
}

int conntrack_restart(const struct restart *r, const Reprise__Network *m, struct error *e)
{
	_cleanup_(close_fd) int fd = -EBADF;
	struct failures f = {};
	struct error problem = {};
	int res;

	if (!m->n_conntrack)
		return 0;
	fd = nfnl_open();
	res = fd < 0 ? fd : send_all(fd, r, m, false, &f);
	if (res >= 0)
		res = send_all(fd, r, m, true, &f);
	if (res < 0)
		return error_errno(e, res, E_RESTORE, "cannot restore the tracked connections");
	if (!f.n)
		return 0;
	/* The application works without, as after a reboot of its router. */
	error_errno(&problem, f.last, E_NETWORK_TRACKING, "%zu of %zu tracked connections are lost",
		    f.n, m->n_conntrack);
	if (r->warn)
		r->warn(r->warn_arg, &problem);
	return 0;
}
