/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/net_entries.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_addrlabel.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/rtnl.h"

#define ENTRY_MAX   4096
#define ENTRIES_MAX 100000
#define SETTLE_MS   1000
#define BIT(n)	    (UINT64_C(1) << (n))

/* Numbers that older headers lack. */
#define RULE_DSCP_AND_LATER (BIT(24) | BIT(25) | BIT(26) | BIT(27) | BIT(28) | BIT(29))
#define IFA_PROTO_NUMBER    11
#define ADDRESS_FLAGS                                                                \
	(IFA_F_NODAD | IFA_F_OPTIMISTIC | IFA_F_HOMEADDRESS | IFA_F_MANAGETEMPADDR | \
	 IFA_F_NOPREFIXROUTE | IFA_F_MCAUTOJOIN)
#define NHA_OP_FLAGS_NUMBER 14
#define NEIGHBOUR_FLAGS	    (NTF_ROUTER | NTF_EXT_LEARNED | NTF_PROXY)

int net_list_add(struct net_list *list, const struct rtnl_message *m, struct scratch *s)
{
	ProtobufCBinaryData *slot = vec_push(&list->list);

	if (!slot || m->full || list->list.n > ENTRIES_MAX)
		return -ENOMEM;
	slot->len = m->header.nlmsg_len - NLMSG_HDRLEN;
	slot->data = scratch_copy(s, NLMSG_DATA(&m->header), slot->len);
	return slot->data ? 0 : -ENOMEM;
}

struct kind {
	const char *what;
	uint16_t get, add, del;
	size_t fixed;
	uint64_t kept, dropped; /* attributes; others are refused */
};

static const struct kind kinds[NET_ENTRIES] = {
	[NET_ADDRESSES] = {"address", RTM_GETADDR, RTM_NEWADDR, RTM_DELADDR,
			   sizeof(struct ifaddrmsg),
			   BIT(IFA_ADDRESS) | BIT(IFA_LOCAL) | BIT(IFA_LABEL) | BIT(IFA_BROADCAST) |
				   BIT(IFA_ANYCAST) | BIT(IFA_CACHEINFO) | BIT(IFA_FLAGS) |
				   BIT(IFA_RT_PRIORITY) | BIT(IFA_PROTO_NUMBER),
			   BIT(IFA_TARGET_NETNSID)},
	[NET_RULES] = {"rule", RTM_GETRULE, RTM_NEWRULE, RTM_DELRULE, sizeof(struct fib_rule_hdr),
		       BIT(FRA_DST) | BIT(FRA_SRC) | BIT(FRA_IIFNAME) | BIT(FRA_GOTO) |
			       BIT(FRA_PRIORITY) | BIT(FRA_FWMARK) | BIT(FRA_FLOW) |
			       BIT(FRA_TUN_ID) | BIT(FRA_SUPPRESS_IFGROUP) |
			       BIT(FRA_SUPPRESS_PREFIXLEN) | BIT(FRA_TABLE) | BIT(FRA_FWMASK) |
			       BIT(FRA_OIFNAME) | BIT(FRA_L3MDEV) | BIT(FRA_UID_RANGE) |
			       BIT(FRA_PROTOCOL) | BIT(FRA_IP_PROTO) | BIT(FRA_SPORT_RANGE) |
			       BIT(FRA_DPORT_RANGE) | RULE_DSCP_AND_LATER,
		       BIT(FRA_PAD)},
	[NET_NEXT_HOPS] = {"next hop", RTM_GETNEXTHOP, RTM_NEWNEXTHOP, RTM_DELNEXTHOP,
			   sizeof(struct nhmsg),
			   BIT(NHA_ID) | BIT(NHA_GROUP) | BIT(NHA_GROUP_TYPE) | BIT(NHA_BLACKHOLE) |
				   BIT(NHA_OIF) | BIT(NHA_GATEWAY) | BIT(NHA_FDB),
			   BIT(NHA_OP_FLAGS_NUMBER)},
	[NET_ROUTES] = {"route", RTM_GETROUTE, RTM_NEWROUTE, RTM_DELROUTE, sizeof(struct rtmsg),
			BIT(RTA_DST) | BIT(RTA_SRC) | BIT(RTA_IIF) | BIT(RTA_OIF) |
				BIT(RTA_GATEWAY) | BIT(RTA_PRIORITY) | BIT(RTA_PREFSRC) |
				BIT(RTA_METRICS) | BIT(RTA_MULTIPATH) | BIT(RTA_FLOW) |
				BIT(RTA_TABLE) | BIT(RTA_VIA) | BIT(RTA_PREF) | BIT(RTA_EXPIRES) |
				BIT(RTA_NH_ID),
			BIT(RTA_CACHEINFO) | BIT(RTA_PAD)},
	[NET_NEIGHBOURS] = {"neighbour", RTM_GETNEIGH, RTM_NEWNEIGH, RTM_DELNEIGH,
			    sizeof(struct ndmsg),
			    BIT(NDA_DST) | BIT(NDA_LLADDR) | BIT(NDA_PROTOCOL) | BIT(NDA_FLAGS_EXT),
			    BIT(NDA_CACHEINFO) | BIT(NDA_PROBES)},
	[NET_PROXIES] = {"proxy of a neighbour", RTM_GETNEIGH, RTM_NEWNEIGH, RTM_DELNEIGH,
			 sizeof(struct ndmsg),
			 BIT(NDA_DST) | BIT(NDA_PROTOCOL) | BIT(NDA_FLAGS_EXT),
			 BIT(NDA_CACHEINFO) | BIT(NDA_PROBES)},
	[NET_LABELS] = {"label of an address", RTM_GETADDRLABEL, RTM_NEWADDRLABEL, RTM_DELADDRLABEL,
			sizeof(struct ifaddrlblmsg), BIT(IFAL_ADDRESS) | BIT(IFAL_LABEL), 0},
};

struct look {
	enum net_entries kind;
	int index;
	const struct net_others *others;
	struct net_list *ret;
	struct scratch *s;
	struct error *e;
};

bool net_others_have(const struct net_others *o, int index)
{
	for (size_t i = 0; o && i < o->list.n; i++)
		if (o->list.v[i].index == index)
			return true;
	return false;
}

bool net_others_have_name(const struct net_others *o, const char *name, size_t len)
{
	for (size_t i = 0; o && i < o->list.n; i++)
		if (!strncmp(o->list.v[i].name, name, len) && !o->list.v[i].name[len])
			return true;
	return false;
}

/* ---- the form in which entries are kept ---- */

/* Only whether a hop is said to be on the link is not of the moment. */
static void settle_hops(void *data, size_t len)
{
	char *at = data;

	while (len >= sizeof(struct rtnexthop)) {
		struct rtnexthop *hop = (struct rtnexthop *)at;
		size_t size = RTNH_ALIGN(hop->rtnh_len);

		if (hop->rtnh_len < sizeof(*hop) || size > len)
			break;
		hop->rtnh_flags &= RTNH_F_ONLINK;
		at += size;
		len -= size;
	}
}

static uint32_t address_flags(const struct nlmsghdr *h)
{
	const struct ifaddrmsg *a = NLMSG_DATA(h);
	size_t n;

	return rtnl_find(a, NLMSG_PAYLOAD(h, 0), sizeof(*a), IFA_FLAGS, &n)
		       ? rtnl_number(a, NLMSG_PAYLOAD(h, 0), sizeof(*a), IFA_FLAGS)
		       : a->ifa_flags;
}

static void put_attribute(struct rtnl_message *m, const struct look *l, const struct rtattr *a,
			  uint16_t type, const struct nlmsghdr *h)
{
	uint8_t data[ENTRY_MAX];
	size_t len = RTA_PAYLOAD(a);

	if (len > sizeof(data)) {
		m->full = true;
		return;
	}
	memcpy(data, RTA_DATA(a), len);
	if (l->kind == NET_ROUTES && type == RTA_MULTIPATH)
		settle_hops(data, len);
	if (l->kind == NET_ADDRESSES && type == IFA_CACHEINFO &&
	    len >= sizeof(struct ifa_cacheinfo)) {
		struct ifa_cacheinfo *times = (struct ifa_cacheinfo *)data;

		times->cstamp = times->tstamp = 0;
	}
	if (l->kind == NET_ADDRESSES && type == IFA_FLAGS && len == sizeof(uint32_t)) {
		uint32_t flags = address_flags(h) & ADDRESS_FLAGS;

		memcpy(data, &flags, sizeof(flags));
	}
	rtnl_attribute(m, a->rta_type, data, len);
}

static void settle_header(enum net_entries kind, void *header)
{
	struct ifaddrmsg *address = header;
	struct rtmsg *route = header;
	struct fib_rule_hdr *rule = header;
	struct nhmsg *hop = header;
	struct ifaddrlblmsg *label = header;
	struct ndmsg *neighbour = header;

	switch (kind) {
	case NET_ADDRESSES:
		address->ifa_flags = 0;
		break;
	case NET_ROUTES:
		route->rtm_flags &= RTNH_F_ONLINK;
		break;
	case NET_NEXT_HOPS:
		hop->nh_flags &= RTNH_F_ONLINK;
		hop->nh_scope = 0;
		break;
	case NET_RULES:
		rule->flags &= FIB_RULE_INVERT;
		break;
	case NET_LABELS:
		label->ifal_seq = 0;
		break;
	default:
		neighbour->ndm_flags &= NEIGHBOUR_FLAGS;
		neighbour->ndm_type = 0;
		break;
	}
}

/* The time after which a route of IPv6 is given up, in seconds, is told in ticks. */
static void put_expiry(struct rtnl_message *m, const struct nlmsghdr *h)
{
	const struct rtmsg *route = NLMSG_DATA(h);
	const struct rta_cacheinfo *info;
	size_t n;
	uint32_t seconds;

	info = rtnl_find(route, NLMSG_PAYLOAD(h, 0), sizeof(*route), RTA_CACHEINFO, &n);
	if (!info || n < sizeof(*info) || info->rta_expires <= 0)
		return;
	seconds = (uint32_t)info->rta_expires / (uint32_t)sysconf(_SC_CLK_TCK);
	rtnl_attribute(m, RTA_EXPIRES, &seconds, sizeof(seconds));
}

/* Of a route by way of a next hop with a number the kernel tells both, and takes only that. */
static bool is_of_hop(const struct look *l, const struct nlmsghdr *h, uint16_t type)
{
	const uint64_t parts = BIT(RTA_OIF) | BIT(RTA_GATEWAY) | BIT(RTA_VIA) | BIT(RTA_MULTIPATH) |
			       BIT(RTA_ENCAP) | BIT(RTA_ENCAP_TYPE);
	size_t n;

	return l->kind == NET_ROUTES && type < 64 && parts & BIT(type) &&
	       rtnl_find(NLMSG_DATA(h), NLMSG_PAYLOAD(h, 0), sizeof(struct rtmsg), RTA_NH_ID, &n);
}

static int keep(struct look *l, const struct nlmsghdr *h)
{
	const struct kind *k = &kinds[l->kind];
	const char *body = NLMSG_DATA(h);
	size_t len = NLMSG_PAYLOAD(h, 0), at = NLMSG_ALIGN(k->fixed);
	struct rtnl_message m;

	if (!rtnl_valid(body, len, k->fixed))
		return -EPROTO;
	rtnl_begin(&m, k->add, 0, body, k->fixed);
	settle_header(l->kind, NLMSG_DATA(&m.header));
	for (; at < len; at += RTA_ALIGN(((const struct rtattr *)(body + at))->rta_len)) {
		const struct rtattr *a = (const struct rtattr *)(body + at);
		uint16_t type = a->rta_type & NLA_TYPE_MASK;

		if ((type < 64 && k->dropped & BIT(type)) || is_of_hop(l, h, type))
			continue;
		if (type >= 64 || !(k->kept & BIT(type)))
			return error_set(l->e, -EOPNOTSUPP, E_CONTAINER_STATE,
					 "a %s of the network namespace has an attribute that "
					 "cannot be saved (%u)",
					 k->what, type);
		put_attribute(&m, l, a, type, h);
	}
	if (l->kind == NET_ROUTES)
		put_expiry(&m, h);
	return net_list_add(l->ret, &m, l->s);
}

/* ---- looking ---- */

static int take_address(struct look *l, const struct nlmsghdr *h)
{
	const struct ifaddrmsg *a = NLMSG_DATA(h);

	if (net_others_have(l->others, (int)a->ifa_index) ||
	    (l->index && (int)a->ifa_index != l->index))
		return 0;
	/* IFA_F_SECONDARY has the same number in IPv4. */
	if (a->ifa_family == AF_INET6 && address_flags(h) & IFA_F_TEMPORARY)
		return error_set(l->e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "a temporary IPv6 address (use_tempaddr) cannot be saved");
	return keep(l, h);
}

static int take_route(struct look *l, const struct nlmsghdr *h)
{
	const struct rtmsg *m = NLMSG_DATA(h);
	int out = (int)rtnl_number(m, NLMSG_PAYLOAD(h, 0), sizeof(*m), RTA_OIF);

	/* An anycast address comes with a prefix, or with the socket that is a member
	 * (aca_alloc()). */
	if (m->rtm_flags & RTM_F_CLONED ||
	    (m->rtm_type == RTN_ANYCAST && m->rtm_protocol == RTPROT_KERNEL) ||
	    (out && net_others_have(l->others, out)))
		return 0;
	if (m->rtm_family != AF_INET && m->rtm_family != AF_INET6)
		return error_set(l->e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "a route of family %u cannot be saved", m->rtm_family);
	return keep(l, h);
}

/*
 * What was learnt is learnt again. Without ARP the kernel makes entries for addresses of groups and
 * of interfaces that need none.
 */
static int take_neighbour(struct look *l, const struct nlmsghdr *h)
{
	const struct ndmsg *n = NLMSG_DATA(h);
	size_t len;
	const uint8_t *address = rtnl_find(n, NLMSG_PAYLOAD(h, 0), sizeof(*n), NDA_LLADDR, &len);

	if (net_others_have(l->others, n->ndm_ifindex) ||
	    (n->ndm_family != AF_INET && n->ndm_family != AF_INET6))
		return 0;
	if (l->kind == NET_PROXIES)
		return n->ndm_flags & NTF_PROXY ? keep(l, h) : 0;
	if (n->ndm_state == NUD_NOARP && address && len && !(*address & 1) &&
	    memcmp(address, "\0\0\0\0\0", len < 6 ? len : 6))
		return keep(l, h);
	return n->ndm_state & NUD_PERMANENT ? keep(l, h) : 0;
}

static int take_label(struct look *l, const struct nlmsghdr *h)
{
	const struct ifaddrlblmsg *m = NLMSG_DATA(h);

	return net_others_have(l->others, (int)m->ifal_index) ? 0 : keep(l, h);
}

static int take(void *arg, const struct nlmsghdr *h)
{
	struct look *l = arg;

	if (h->nlmsg_type != kinds[l->kind].add || NLMSG_PAYLOAD(h, 0) < kinds[l->kind].fixed)
		return 0;
	switch (l->kind) {
	case NET_ADDRESSES:
		return take_address(l, h);
	case NET_ROUTES:
		return take_route(l, h);
	case NET_NEXT_HOPS:
	case NET_RULES:
		return keep(l, h);
	case NET_LABELS:
		return take_label(l, h);
	default:
		return take_neighbour(l, h);
	}
}

int net_entries_look(int fd, enum net_entries kind, int index, const struct net_others *others,
		     struct net_list *ret, struct scratch *s, struct error *e)
{
	struct look l = {
		.kind = kind, .index = index, .others = others, .ret = ret, .s = s, .e = e};
	struct ndmsg any = {.ndm_flags = kind == NET_PROXIES ? NTF_PROXY : 0};
	union {
		struct ndmsg neighbour;
		struct rtmsg route;
		struct ifaddrmsg address;
		struct fib_rule_hdr rule;
		struct nhmsg hop;
		struct ifaddrlblmsg label;
	} body = {};
	int r;

	if (kind == NET_PROXIES || kind == NET_NEIGHBOURS)
		body.neighbour = any;
	if (kind == NET_LABELS)
		body.label.ifal_family = AF_INET6;
	/* Somebody changed something meanwhile: once more. */
	for (int i = 0; i < 10; i++) {
		ret->list.n = 0;
		r = rtnl_dump(fd, kinds[kind].get, &body, kinds[kind].fixed, take, &l);
		if (r != -EAGAIN)
			break;
	}
	/* A kernel without IPv6 has none. */
	if (kind == NET_LABELS && r == -EOPNOTSUPP)
		return 0;
	if (r < 0 && (!e || !e->code))
		error_errno(e, r, E_SYSTEM, "cannot list each %s of the network namespace",
			    kinds[kind].what);
	return r;
}

int net_entries_validate(enum net_entries kind, size_t n, const ProtobufCBinaryData *entries,
			 struct error *e)
{
	for (size_t i = 0; i < n; i++)
		if (entries[i].len > ENTRY_MAX || n > ENTRIES_MAX ||
		    !rtnl_valid(entries[i].data, entries[i].len, kinds[kind].fixed))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible %s",
					 kinds[kind].what);
	return 0;
}

/* ---- restart ---- */

/* The times for which an address or a route is valid run: only whether there are any counts. */
static void without_times(enum net_entries kind, uint8_t *entry, size_t len)
{
	const size_t fixed = kinds[kind].fixed;
	size_t n;
	void *at = (void *)rtnl_find(entry, len, fixed,
				     kind == NET_ROUTES ? RTA_EXPIRES : IFA_CACHEINFO, &n);
	struct ifa_cacheinfo *times = at;

	if (at && kind == NET_ADDRESSES && n >= sizeof(*times)) {
		times->ifa_prefered = times->ifa_prefered != UINT32_MAX;
		times->ifa_valid = times->ifa_valid != UINT32_MAX;
	} else if (at && kind == NET_ROUTES) {
		memset(at, 0, n);
	}
}

static bool same(enum net_entries kind, const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	uint8_t copy[2][ENTRY_MAX];

	if (a->len != b->len || a->len > ENTRY_MAX)
		return false;
	memcpy(copy[0], a->data, a->len);
	memcpy(copy[1], b->data, b->len);
	without_times(kind, copy[0], a->len);
	without_times(kind, copy[1], b->len);
	return !memcmp(copy[0], copy[1], a->len);
}

static bool has(enum net_entries kind, const ProtobufCBinaryData *entries, size_t n,
		const ProtobufCBinaryData *wanted)
{
	for (size_t i = 0; i < n; i++)
		if (same(kind, &entries[i], wanted))
			return true;
	return false;
}

static int send_entry(int fd, uint16_t type, uint16_t flags, const struct kind *k,
		      const ProtobufCBinaryData *entry, int index, uint32_t more_flags)
{
	struct rtnl_message m;
	size_t at = NLMSG_ALIGN(k->fixed);

	rtnl_begin(&m, type, flags, entry->data, k->fixed);
	if (index)
		((struct ifaddrmsg *)NLMSG_DATA(&m.header))->ifa_index = (uint32_t)index;
	while (at < entry->len) {
		const struct rtattr *a = (const struct rtattr *)(entry->data + at);
		uint32_t value = 0;

		if (more_flags && a->rta_type == IFA_FLAGS && RTA_PAYLOAD(a) == sizeof(value)) {
			memcpy(&value, RTA_DATA(a), sizeof(value));
			value |= more_flags;
			rtnl_attribute(&m, IFA_FLAGS, &value, sizeof(value));
		} else {
			rtnl_attribute(&m, a->rta_type, RTA_DATA(a), RTA_PAYLOAD(a));
		}
		at += RTA_ALIGN(a->rta_len);
	}
	return rtnl_request(fd, &m);
}

/*
 * An address of IPv6 that is looked for in the network first cannot be bound to at once
 * (IFA_F_TENTATIVE): it is added without, and gets its own flags by a second message.
 */
static int add_address(int fd, const ProtobufCBinaryData *entry, int index)
{
	const struct kind *k = &kinds[NET_ADDRESSES];
	const struct ifaddrmsg *a = (const struct ifaddrmsg *)entry->data;
	const bool v6 = a->ifa_family == AF_INET6;
	int r = send_entry(fd, k->add, NLM_F_CREATE | NLM_F_EXCL, k, entry, index,
			   v6 ? IFA_F_NODAD : 0);

	return r < 0 || !v6 ? r : send_entry(fd, k->add, NLM_F_REPLACE, k, entry, index, 0);
}

int net_addresses_add(int fd, int index, size_t n, const ProtobufCBinaryData *entries,
		      struct error *e)
{
	for (size_t i = 0; i < n; i++) {
		int r = add_address(fd, &entries[i], index);

		/* A link-local one it has made itself. */
		if (r < 0 && r != -EEXIST)
			return error_errno(e, r, E_RESTORE, "cannot add an address");
	}
	return 0;
}

static int add_entry(int fd, enum net_entries kind, const ProtobufCBinaryData *entry)
{
	uint16_t flags = NLM_F_CREATE;

	if (kind == NET_ADDRESSES)
		return add_address(fd, entry, 0);
	/* Routes to one place are tried in order. */
	flags |= kind == NET_ROUTES			      ? NLM_F_APPEND
		 : kind == NET_RULES || kind == NET_NEXT_HOPS ? NLM_F_EXCL
							      : NLM_F_REPLACE;
	return send_entry(fd, kinds[kind].add, flags, &kinds[kind], entry, 0, 0);
}

struct pass {
	size_t missing, extra, changed;
	int last; /* why the last could not be added */
};

/* Made by the kernel with an address, some moments later. */
static bool comes_by_itself(enum net_entries kind, const ProtobufCBinaryData *entry)
{
	const struct rtmsg *m = (const struct rtmsg *)entry->data;

	return kind == NET_ROUTES && m->rtm_protocol == RTPROT_KERNEL;
}

static void one_pass(int fd, enum net_entries kind, size_t n, const ProtobufCBinaryData *entries,
		     const struct net_list *now, bool patient, struct pass *p)
{
	const struct kind *k = &kinds[kind];

	for (size_t i = 0; i < now->list.n; i++) {
		if (has(kind, entries, n, &now->list.v[i]))
			continue;
		p->extra++;
		p->changed += send_entry(fd, k->del, 0, k, &now->list.v[i], 0, 0) == 0;
	}
	for (size_t i = 0; i < n; i++) {
		int r;

		if (has(kind, now->list.v, now->list.n, &entries[i]))
			continue;
		p->missing++;
		if (patient && comes_by_itself(kind, &entries[i]))
			continue;
		r = add_entry(fd, kind, &entries[i]);
		p->changed += r == 0;
		p->last = r < 0 ? r : p->last;
	}
}

int net_entries_restore(int fd, enum net_entries kind, size_t n, const ProtobufCBinaryData *entries,
			const struct net_others *others, struct error *e)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	for (int tries = 0;; tries++) {
		_cleanup_(scratch_free) struct scratch s = {};
		bool patient = tries < SETTLE_MS;
		struct net_list now = {};
		struct pass p = {};
		int r = net_entries_look(fd, kind, 0, others, &now, &s, e);

		if (r >= 0)
			one_pass(fd, kind, n, entries, &now, patient, &p);
		vec_free(&now.list);
		if (r < 0 || (!p.missing && !p.extra))
			return r;
		/* A route by way of another waits for that one. */
		if (p.changed && tries < 2 * SETTLE_MS)
			continue;
		if (!patient && p.last)
			return error_errno(e, p.last, E_RESTORE, "cannot add a %s",
					   kinds[kind].what);
		if (!patient)
			return error_set(e, -EIO, E_RESTORE,
					 "a %s of the network namespace did not come out as it was",
					 kinds[kind].what);
		/* An error that does not depend on what the kernel does by itself is final soon. */
		if (p.last && tries > 20)
			return error_errno(e, p.last, E_RESTORE, "cannot add a %s",
					   kinds[kind].what);
		nanosleep(&pause, NULL);
	}
}
