/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/net_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/rtnl.h"

/* Pairs of addresses are taken from here where none are given; a subnet of four for each. */
#define POOL	     0x0ad50000u /* 10.213.0.0/16 */
#define POOL_SUBNETS 16384u
#define PAIR_LENGTH  30

struct pair {
	uint32_t ours, gateway; /* network byte order; ours: of the container */
	uint8_t length;
};

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an address");
}

static uint32_t mask_of(uint8_t length)
{
	return length ? htonl(UINT32_MAX << (32 - length)) : 0;
}

/* ---- what is asked for ---- */

/* "veth", "veth=ADDRESS/LENGTH" or "veth=ADDRESS/LENGTH,GATEWAY"; 0: none is given. */
static int parse(const char *how, struct pair *p, struct error *e)
{
	char text[64], *slash, *comma, *end;
	struct in_addr a, g;
	unsigned long length;

	if (!strcmp(how, "veth"))
		return 0;
	if (strncmp(how, "veth=", 5) != 0 || strlen(how + 5) >= sizeof(text))
		goto bad;
	strcpy(text, how + 5);
	comma = strchr(text, ',');
	if (comma)
		*comma++ = '\0';
	slash = strchr(text, '/');
	if (!slash)
		goto bad;
	*slash++ = '\0';
	length = strtoul(slash, &end, 10);
	if (end == slash || *end || length < 8 || length > 31 || inet_pton(AF_INET, text, &a) != 1)
		goto bad;
	p->length = (uint8_t)length;
	p->ours = a.s_addr;
	/* The first of the network, or the second if that is the container's. */
	g.s_addr = htonl(ntohl(a.s_addr & mask_of(p->length)) + (length < 31));
	if (g.s_addr == a.s_addr)
		g.s_addr = htonl(ntohl(g.s_addr) + 1);
	if (comma && inet_pton(AF_INET, comma, &g) != 1)
		goto bad;
	p->gateway = g.s_addr;
	if ((g.s_addr ^ a.s_addr) & mask_of(p->length) || g.s_addr == a.s_addr)
		return error_set(e, -EINVAL, E_USAGE,
				 "%s: the gateway is another address of the same network", how);
	return 1;
bad:
	return error_set(e, -EINVAL, E_USAGE,
			 "veth, veth=ADDRESS/LENGTH or veth=ADDRESS/LENGTH,GATEWAY is understood, "
			 "not '%s'",
			 how);
}

int net_address_check(const char *how, struct error *e)
{
	struct pair unused;
	int r = parse(how, &unused, e);

	return r < 0 ? r : 0;
}

/* ---- what is free ---- */

struct taken {
	uint32_t net, mask, own; /* a network, and an address */
	bool net_taken, own_taken;
};

static int match_address(void *arg, const struct nlmsghdr *h)
{
	const struct ifaddrmsg *a = NLMSG_DATA(h);
	struct taken *t = arg;
	uint32_t is, mask;
	size_t n;
	const void *local = rtnl_find(a, NLMSG_PAYLOAD(h, 0), sizeof(*a), IFA_LOCAL, &n);

	if (h->nlmsg_type != RTM_NEWADDR || a->ifa_family != AF_INET || !local || n != sizeof(is))
		return 0;
	memcpy(&is, local, sizeof(is));
	mask = mask_of(a->ifa_prefixlen) & t->mask;
	t->own_taken |= is == t->own;
	t->net_taken |= ((is ^ t->net) & mask) == 0;
	return 0;
}

static int match_route(void *arg, const struct nlmsghdr *h)
{
	const struct rtmsg *m = NLMSG_DATA(h);
	struct taken *t = arg;
	uint32_t is;
	size_t n;
	const void *to = rtnl_find(m, NLMSG_PAYLOAD(h, 0), sizeof(*m), RTA_DST, &n);

	if (h->nlmsg_type != RTM_NEWROUTE || m->rtm_family != AF_INET || !to || n != sizeof(is) ||
	    !m->rtm_dst_len)
		return 0;
	memcpy(&is, to, sizeof(is));
	t->net_taken |= ((is ^ t->net) & mask_of(m->rtm_dst_len) & t->mask) == 0;
	return 0;
}

static int look(const struct net_host *host, struct taken *t, bool routes)
{
	const struct ifaddrmsg a = {.ifa_family = AF_INET};
	const struct rtmsg m = {.rtm_family = AF_INET};
	int r = rtnl_dump(host->rtnl, RTM_GETADDR, &a, sizeof(a), match_address, t);

	return r < 0 || !routes
		       ? r
		       : rtnl_dump(host->rtnl, RTM_GETROUTE, &m, sizeof(m), match_route, t);
}

/*
 * A network that the host has no address in and no route to. Whoever looks at the same time begins
 * elsewhere: at a number of his own.
 */
static int find_free(const struct net_host *host, struct pair *p, struct error *e)
{
	struct timespec now;
	uint32_t start;

	clock_gettime(CLOCK_MONOTONIC, &now);
	start = (uint32_t)getpid() * 2654435761u ^ (uint32_t)now.tv_nsec;
	for (uint32_t i = 0; i < POOL_SUBNETS; i++) {
		uint32_t net = POOL + ((start + i) % POOL_SUBNETS) * 4;
		struct taken t = {.net = htonl(net), .mask = mask_of(PAIR_LENGTH)};
		int r = look(host, &t, true);

		if (r < 0 && r != -EAGAIN)
			return error_errno(e, r, E_SYSTEM, "cannot look for a free address");
		if (r < 0 || t.net_taken)
			continue;
		*p = (struct pair){htonl(net + 2), htonl(net + 1), PAIR_LENGTH};
		return 0;
	}
	return error_set(e, -EADDRNOTAVAIL, E_NAMESPACE, "no network of 10.213.0.0/16 is free");
}

/* ---- a new container ---- */

static int put_address(ProtobufCBinaryData *ret, int index, uint32_t address, uint8_t length,
		       struct scratch *s)
{
	const struct ifaddrmsg a = {
		.ifa_family = AF_INET, .ifa_prefixlen = length, .ifa_index = (uint32_t)index};
	uint32_t broadcast = address | ~mask_of(length);
	struct rtnl_message m;

	rtnl_begin(&m, RTM_NEWADDR, 0, &a, sizeof(a));
	rtnl_attribute(&m, IFA_ADDRESS, &address, sizeof(address));
	rtnl_attribute(&m, IFA_LOCAL, &address, sizeof(address));
	if (length < 31)
		rtnl_attribute(&m, IFA_BROADCAST, &broadcast, sizeof(broadcast));
	ret->len = m.header.nlmsg_len - NLMSG_HDRLEN;
	ret->data = scratch_copy(s, NLMSG_DATA(&m.header), ret->len);
	return ret->data ? 0 : -ENOMEM;
}

int net_address_assign(const struct net_host *host, Reprise__Network *m, const char *how,
		       struct scratch *s, struct error *e)
{
	Reprise__NetLink *veth = m->links[1];
	ProtobufCBinaryData *both = scratch_alloc(s, 2 * sizeof(*both));
	struct pair p;
	int r = parse(how, &p, e);

	if (r == 0)
		r = find_free(host, &p, e);
	if (r < 0)
		return r;
	if (!both || put_address(&both[0], veth->index, p.ours, p.length, s) < 0 ||
	    put_address(&both[1], 0, p.gateway, p.length, s) < 0)
		return no_memory(e);
	m->addresses = &both[0];
	veth->outside->addresses = &both[1];
	m->n_addresses = veth->outside->n_addresses = 1;
	return 0;
}

static uint32_t local_of(const ProtobufCBinaryData *entry)
{
	size_t n;
	const void *at =
		rtnl_find(entry->data, entry->len, sizeof(struct ifaddrmsg), IFA_LOCAL, &n);
	uint32_t value = 0;

	if (at && n == sizeof(value) &&
	    ((const struct ifaddrmsg *)entry->data)->ifa_family == AF_INET)
		memcpy(&value, at, n);
	return value;
}

int net_address_gateway(int fd, const Reprise__Network *m, struct error *e)
{
	const struct rtmsg body = {.rtm_family = AF_INET,
				   .rtm_table = RT_TABLE_MAIN,
				   .rtm_protocol = RTPROT_BOOT,
				   .rtm_scope = RT_SCOPE_UNIVERSE,
				   .rtm_type = RTN_UNICAST};
	const uint32_t gateway = local_of(&m->links[1]->outside->addresses[0]);
	struct rtnl_message msg;
	int r;

	rtnl_begin(&msg, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof(body));
	rtnl_attribute(&msg, RTA_GATEWAY, &gateway, sizeof(gateway));
	r = rtnl_request(fd, &msg);
	return r < 0 ? error_errno(e, r, E_NAMESPACE, "cannot set the default route") : 0;
}

/* ---- another address at a restart ---- */

struct exchange {
	struct pair old, new;
	int index; /* of the interface of the container */
};

static const ProtobufCBinaryData *first_of(size_t n, const ProtobufCBinaryData *list, int index)
{
	for (size_t i = 0; i < n; i++)
		if (local_of(&list[i]) &&
		    (!index || (int)((const struct ifaddrmsg *)list[i].data)->ifa_index == index))
			return &list[i];
	return NULL;
}

static uint32_t gateway_of(const Reprise__Network *m, int index)
{
	for (size_t i = 0; i < m->n_routes; i++) {
		const struct rtmsg *route = (const struct rtmsg *)m->routes[i].data;
		const size_t fixed = sizeof(*route), len = m->routes[i].len;
		size_t n, unused;
		const void *via = rtnl_find(route, len, fixed, RTA_GATEWAY, &n);
		const void *out = rtnl_find(route, len, fixed, RTA_OIF, &unused);
		uint32_t value;

		if (route->rtm_family != AF_INET || route->rtm_dst_len || !via || n != 4 || !out ||
		    unused != sizeof(index) || memcmp(out, &index, sizeof(index)) != 0)
			continue;
		memcpy(&value, via, sizeof(value));
		return value;
	}
	return 0;
}

static bool find_old(const Reprise__Network *m, const Reprise__NetLink *link, struct pair *old)
{
	const ProtobufCBinaryData *ours = first_of(m->n_addresses, m->addresses, link->index);
	const ProtobufCBinaryData *theirs =
		first_of(link->outside->n_addresses, link->outside->addresses, 0);

	if (!ours)
		return false;
	old->ours = local_of(ours);
	old->length = ((const struct ifaddrmsg *)ours->data)->ifa_prefixlen;
	old->gateway = theirs ? local_of(theirs) : gateway_of(m, link->index);
	return true;
}

static Reprise__NetLink *first_veth(const Reprise__Network *m)
{
	for (size_t i = 0; i < m->n_links; i++)
		if (m->links[i]->outside && !strcmp(m->links[i]->kind, "veth"))
			return m->links[i];
	return NULL;
}

/* Is an address of the host's end somebody's already? */
static int is_taken(const struct net_host *host, const Reprise__NetLink *link)
{
	for (size_t i = 0; i < link->outside->n_addresses; i++) {
		struct taken t = {.own = local_of(&link->outside->addresses[i])};
		int r = t.own ? look(host, &t, false) : 0;

		if (r < 0 || t.own_taken)
			return r < 0 ? r : 1;
	}
	return 0;
}

static void exchange_one(void *value, size_t len, const struct exchange *x)
{
	uint32_t is, old_last = x->old.ours | ~mask_of(x->old.length),
		     new_last = x->new.ours | ~mask_of(x->new.length);

	if (len != sizeof(is))
		return;
	memcpy(&is, value, sizeof(is));
	if (is == x->old.ours)
		is = x->new.ours;
	else if (is && is == x->old.gateway)
		is = x->new.gateway;
	else if (is == old_last && x->old.length < 31)
		is = new_last;
	memcpy(value, &is, sizeof(is));
}

/* Copies of the entries, in which attributes of these types are exchanged. All of IPv4. */
static int exchange_all(size_t n, ProtobufCBinaryData **list, size_t fixed, uint64_t types,
			const struct exchange *x, bool lengths, struct scratch *s)
{
	ProtobufCBinaryData *copy = n ? scratch_copy(s, *list, n * sizeof(*copy)) : NULL;

	if (!n)
		return 0;
	if (!copy)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		size_t at = NLMSG_ALIGN(fixed);
		uint32_t local = lengths ? local_of(&copy[i]) : 0;

		copy[i].data = scratch_copy(s, copy[i].data, copy[i].len);
		if (!copy[i].data)
			return -ENOMEM;
		if (*copy[i].data != AF_INET) /* every header begins with it */
			continue;
		if (local && (local == x->old.ours || local == x->old.gateway))
			((struct ifaddrmsg *)copy[i].data)->ifa_prefixlen = x->new.length;
		for (; at < copy[i].len;
		     at += RTA_ALIGN(((struct rtattr *)(copy[i].data + at))->rta_len)) {
			struct rtattr *a = (struct rtattr *)(copy[i].data + at);

			if (a->rta_type < 64 && types & (UINT64_C(1) << a->rta_type))
				exchange_one(RTA_DATA(a), RTA_PAYLOAD(a), x);
		}
	}
	*list = copy;
	return 0;
}

#define BIT(n) (UINT64_C(1) << (n))

static int exchange_entries(Reprise__Network *m, Reprise__NetOutside *outside,
			    const struct exchange *x, struct scratch *s)
{
	const uint64_t address = BIT(IFA_ADDRESS) | BIT(IFA_LOCAL) | BIT(IFA_BROADCAST);
	int r = exchange_all(m->n_addresses, &m->addresses, sizeof(struct ifaddrmsg), address, x,
			     true, s);

	if (r >= 0)
		r = exchange_all(outside->n_addresses, &outside->addresses,
				 sizeof(struct ifaddrmsg), address, x, true, s);
	if (r >= 0)
		r = exchange_all(m->n_rules, &m->rules, sizeof(struct fib_rule_hdr),
				 BIT(FRA_SRC) | BIT(FRA_DST), x, false, s);
	if (r >= 0)
		r = exchange_all(m->n_next_hops, &m->next_hops, sizeof(struct nhmsg),
				 BIT(NHA_GATEWAY), x, false, s);
	if (r >= 0)
		r = exchange_all(m->n_routes, &m->routes, sizeof(struct rtmsg),
				 BIT(RTA_DST) | BIT(RTA_SRC) | BIT(RTA_GATEWAY) | BIT(RTA_PREFSRC),
				 x, false, s);
	if (r >= 0)
		r = exchange_all(m->n_neighbours, &m->neighbours, sizeof(struct ndmsg),
				 BIT(NDA_DST), x, false, s);
	return r < 0 ? r
		     : exchange_all(m->n_proxies, &m->proxies, sizeof(struct ndmsg), BIT(NDA_DST),
				    x, false, s);
}

static int remember(struct restart *r, uint32_t from, uint32_t to)
{
	struct restart_address *a = from ? vec_push(&r->addresses) : NULL;

	if (a)
		*a = (struct restart_address){from, to};
	return a || !from ? 0 : -ENOMEM;
}

/* In a bridge two interfaces of one address would take each other's packets. */
static int without_own_mac(ProtobufCBinaryData *attributes, struct scratch *s)
{
	size_t at = 0, len = 0;
	uint8_t *copy = scratch_alloc(s, attributes->len ?: 1);

	if (!copy)
		return -ENOMEM;
	while (at < attributes->len) {
		const struct rtattr *a = (const struct rtattr *)(attributes->data + at);
		size_t size = RTA_ALIGN(a->rta_len);

		if (a->rta_type != IFLA_ADDRESS) {
			memcpy(copy + len, a, size);
			len += size;
		}
		at += size;
	}
	attributes->data = copy;
	attributes->len = len;
	return 0;
}

/* The host's end makes its link-local address from the other address that it has now. */
static void without_link_local(Reprise__NetOutside *outside)
{
	size_t n = 0;

	for (size_t i = 0; i < outside->n_addresses; i++) {
		const struct ifaddrmsg *a = (const struct ifaddrmsg *)outside->addresses[i].data;

		if (a->ifa_family != AF_INET6 || a->ifa_scope != RT_SCOPE_LINK)
			outside->addresses[n++] = outside->addresses[i];
	}
	outside->n_addresses = n;
}

static int copy_link(Reprise__Network *m, Reprise__NetLink **link, struct scratch *s)
{
	Reprise__NetLink **list = scratch_copy(s, m->links, m->n_links * sizeof(*list));
	Reprise__NetLink *copy = scratch_copy(s, *link, sizeof(*copy));

	if (!list || !copy)
		return -ENOMEM;
	copy->outside = scratch_copy(s, copy->outside, sizeof(*copy->outside));
	if (!copy->outside)
		return -ENOMEM;
	for (size_t i = 0; i < m->n_links; i++)
		if (list[i] == *link)
			list[i] = copy;
	m->links = list;
	*link = copy;
	return 0;
}

static void tell(struct restart *r, const struct exchange *x, const Reprise__NetLink *link)
{
	char was[INET_ADDRSTRLEN], is[INET_ADDRSTRLEN];
	struct error problem = {};

	inet_ntop(AF_INET, &x->old.ours, was, sizeof(was));
	inet_ntop(AF_INET, &x->new.ours, is, sizeof(is));
	error_set(&problem, -EADDRINUSE, E_NETWORK_ADDRESS,
		  "network interface %s has address %s in place of %s, which is taken", link->name,
		  is, was);
	if (r->warn)
		r->warn(r->warn_arg, &problem);
}

static int exchange_link(struct restart *r, Reprise__Network *m, Reprise__NetLink *link,
			 struct exchange *x, struct scratch *s, struct error *e)
{
	int res = copy_link(m, &link, s);

	x->index = link->index;
	if (res >= 0)
		res = exchange_entries(m, link->outside, x, s);
	if (res >= 0)
		res = without_own_mac(&link->outside->attributes, s);
	if (res >= 0)
		without_link_local(link->outside);
	if (res >= 0 && *link->outside->master)
		res = without_own_mac(&link->attributes, s);
	if (res >= 0)
		res = remember(r, x->old.ours, x->new.ours);
	if (res >= 0)
		res = remember(r, x->old.gateway, x->new.gateway);
	return res < 0 ? no_memory(e) : 0;
}

int net_address_choose(const struct net_host *host, struct restart *r, Reprise__Network *m,
		       const char *how, struct scratch *s, struct error *e)
{
	Reprise__NetLink *link = first_veth(m);
	struct exchange x = {};
	int res;

	if (!link && how)
		return error_set(e, -EINVAL, E_USAGE,
				 "the image is of a container without an interface to the host");
	if (!link)
		return 0;
	res = how ? parse(how, &x.new, e) : is_taken(host, link);
	if (res < 0)
		return e->code ? res
			       : error_errno(e, res, E_SYSTEM, "cannot look for a free address");
	if (!how && !res)
		return 0;
	if (!find_old(m, link, &x.old))
		return error_set(e, -EADDRNOTAVAIL, E_NETWORK_ADDRESS,
				 "network interface %s has no IPv4 address that could be exchanged",
				 link->name);
	if (!how || !res)
		res = find_free(host, &x.new, e);
	if (res < 0)
		return res;
	if (!how)
		tell(r, &x, link);
	return exchange_link(r, m, link, &x, s, e);
}

/* Routes of IPv4 that the kernel makes for an address. */
static bool is_of_kernel(const ProtobufCBinaryData *route, int index)
{
	const struct rtmsg *m = (const struct rtmsg *)route->data;
	size_t n;
	const void *out = rtnl_find(m, route->len, sizeof(*m), RTA_OIF, &n);

	return m->rtm_family == AF_INET && m->rtm_protocol == RTPROT_KERNEL && out &&
	       n == sizeof(index) && !memcmp(out, &index, sizeof(index));
}

int net_address_routes(int fd, const struct restart *r, Reprise__Network *m, struct scratch *s,
		       struct error *e)
{
	struct net_list now = {};
	const Reprise__NetLink *link = first_veth(m);
	ProtobufCBinaryData *list;
	size_t n = 0;
	int res;

	/* Of a namespace of some tasks: the address that was exchanged is not there. */
	if (!link || !r->addresses.n)
		return 0;
	res = net_entries_look(fd, NET_ROUTES, 0, NULL, &now, s, e);
	list = scratch_alloc(s, (m->n_routes + now.list.n + 1) * sizeof(*list));
	if (!list && res >= 0)
		res = no_memory(e);
	for (size_t i = 0; i < now.list.n && res >= 0; i++)
		if (is_of_kernel(&now.list.v[i], link->index))
			list[n++] = now.list.v[i];
	for (size_t i = 0; i < m->n_routes && res >= 0; i++)
		if (!is_of_kernel(&m->routes[i], link->index))
			list[n++] = m->routes[i];
	vec_free(&now.list);
	m->routes = list;
	m->n_routes = n;
	return res;
}
