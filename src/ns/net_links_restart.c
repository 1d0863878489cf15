/* SPDX-License-Identifier: Apache-2.0 */
/* The interfaces of a network namespace, made again. */
#include <errno.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/veth.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/patience.h"
#include "net/rtnl.h"
#include "ns/net_kinds.h"
#include "ns/net_links.h"
#include "ns/net_outside.h"
#include "ns/net_pairs.h"

#define CARRIER_MS 1000

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "a network interface with %s", what);
}

static const Reprise__NetLink *link_of(const Reprise__Network *m, int index)
{
	for (size_t i = 0; i < m->n_links; i++)
		if (m->links[i]->index == index)
			return m->links[i];
	return NULL;
}

static bool good_name(const char *name)
{
	return *name && strlen(name) < IFNAMSIZ && !strpbrk(name, "/%: \n") && strcmp(name, ".") &&
	       strcmp(name, "..");
}

static int validate_one(const Reprise__Network *m, const Reprise__NetLink *l, struct error *e)
{
	const struct net_kind *kind;
	int r = net_kind_validate(l, e);

	if (r < 0)
		return r;
	kind = net_kind_of(l->kind);
	if (l->index <= 0 || link_of(m, l->index) != l || !good_name(l->name) ||
	    l->flags & ~(uint32_t)NET_LINK_FLAGS || !net_attributes_valid(&l->attributes) ||
	    l->tx_queues > 4096 || l->rx_queues > 4096 || l->address_mode > UINT8_MAX)
		return invalid(e, "impossible settings");
	if (l->link && (!link_of(m, l->link) || l->link == l->index))
		return invalid(e, "another below it that is not there");
	if (l->master && (!link_of(m, l->master) || strcmp(link_of(m, l->master)->kind, "bridge")))
		return invalid(e, "a master that is no bridge");
	if (!strcmp(l->kind, "veth")
		    ? !!l->outside + !!l->link + !!l->elsewhere != 1 ||
			      (l->link && (link_of(m, l->link)->link != l->index ||
					   strcmp(link_of(m, l->link)->kind, "veth")))
	    : kind->stands_on_another ? !l->outside == !l->link
				      : l->outside || l->link || l->elsewhere)
		return invalid(e, "no other end");
	for (size_t i = 0; i < l->n_other_names; i++)
		if (strlen(l->other_names[i]) > 127)
			return invalid(e, "a name that is too long");
	return l->outside ? net_outside_validate(l->outside, e) : 0;
}

int net_links_validate(const Reprise__Network *m, struct error *e)
{
	if (!m->n_links || *m->links[0]->kind || m->links[0]->index != 1 ||
	    m->n_links > NET_LINKS_MAX)
		return invalid(e, "no loopback before it");
	for (size_t i = 0; i < m->n_links; i++) {
		int r = validate_one(m, m->links[i], e);

		if (r >= 0 && i && !*m->links[i]->kind)
			r = invalid(e, "a second loopback");
		if (r < 0)
			return r;
	}
	return 0;
}

struct search {
	const char *name;
	int index, lower;
	uint32_t flags;
};

static int match_name(void *arg, const struct nlmsghdr *h)
{
	const struct ifinfomsg *i = NLMSG_DATA(h);
	struct search *q = arg;
	size_t n;
	const char *name = rtnl_find(i, NLMSG_PAYLOAD(h, 0), sizeof(*i), IFLA_IFNAME, &n);

	if (h->nlmsg_type == RTM_NEWLINK &&
	    (q->name ? name && !strncmp(name, q->name, n) : i->ifi_index == q->index)) {
		q->index = i->ifi_index;
		q->flags = i->ifi_flags;
		q->lower = (int)rtnl_number(i, NLMSG_PAYLOAD(h, 0), sizeof(*i), IFLA_LINK);
	}
	return 0;
}

int net_index_of(int fd, const char *name)
{
	const struct ifinfomsg all = {};
	struct search q = {.name = name};
	int r = rtnl_dump(fd, RTM_GETLINK, &all, sizeof(all), match_name, &q);

	return r < 0 ? r : q.index ?: -ENODEV;
}

/* The number of its other end, in whichever namespace that is. */
static int lower_of(int fd, int index)
{
	const struct ifinfomsg all = {};
	struct search q = {.index = index};
	int r = rtnl_dump(fd, RTM_GETLINK, &all, sizeof(all), match_name, &q);

	return r < 0 ? r : q.lower ?: -ENODEV;
}

static const void *body_of(const struct rtnl_message *m)
{
	return NLMSG_DATA(&m->header);
}

static size_t body_len(const struct rtnl_message *m)
{
	return m->header.nlmsg_len - NLMSG_HDRLEN;
}

/* No address of IPv6 is made before we say so. */
static void put_mode(struct rtnl_message *m, uint8_t mode)
{
	struct rtnl_message spec, inet6;

	rtnl_begin(&inet6, 0, 0, "", 0);
	rtnl_attribute(&inet6, IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof(mode));
	rtnl_begin(&spec, 0, 0, "", 0);
	rtnl_attribute(&spec, AF_INET6, body_of(&inet6), body_len(&inet6));
	rtnl_attribute(m, IFLA_AF_SPEC, body_of(&spec), body_len(&spec));
}

int net_mode_set(int fd, int index, uint8_t mode)
{
	const struct ifinfomsg i = {.ifi_index = index};
	struct rtnl_message m;
	int r;

	rtnl_begin(&m, RTM_SETLINK, 0, &i, sizeof(i));
	put_mode(&m, mode);
	r = rtnl_request(fd, &m);
	/* A kernel without IPv6, or an interface on which it is off. */
	return r == -EAFNOSUPPORT || r == -EINVAL || r == -EOPNOTSUPP ? 0 : r;
}

static void put_info(struct rtnl_message *m, const Reprise__NetLink *l,
		     const struct rtnl_message *data)
{
	struct rtnl_message info;

	rtnl_begin(&info, 0, 0, "", 0);
	rtnl_attribute(&info, IFLA_INFO_KIND, l->kind, strlen(l->kind) + 1);
	if (data)
		rtnl_attribute(&info, IFLA_INFO_DATA, body_of(data), body_len(data));
	else if (l->data.len && !net_kind_of(l->kind)->later)
		rtnl_attribute(&info, IFLA_INFO_DATA, l->data.data, l->data.len);
	rtnl_attribute(m, IFLA_LINKINFO, body_of(&info), body_len(&info));
}

/* What some kinds take only when they are made. */
static void put_birth(struct rtnl_message *m, const Reprise__NetLink *l)
{
	size_t n;
	const void *address = rtnl_find(l->attributes.data, l->attributes.len, 0, IFLA_ADDRESS, &n);

	if (address && n)
		rtnl_attribute(m, IFLA_ADDRESS, address, n);
	if (l->tx_queues)
		rtnl_attribute(m, IFLA_NUM_TX_QUEUES, &l->tx_queues, sizeof(l->tx_queues));
	if (l->rx_queues)
		rtnl_attribute(m, IFLA_NUM_RX_QUEUES, &l->rx_queues, sizeof(l->rx_queues));
}

/* Both ends are made at once; ns: where the other one is, if it is not here. */
static int make_pair(int fd, int ns, const Reprise__NetLink *l, const Reprise__NetLink *other,
		     const char *name)
{
	const struct ifinfomsg i = {.ifi_index = l->index};
	const struct ifinfomsg peer = {.ifi_index = other ? other->index : 0};
	struct rtnl_message m, end, data;

	rtnl_begin(&end, 0, 0, &peer, sizeof(peer));
	rtnl_attribute(&end, IFLA_IFNAME, name, strlen(name) + 1);
	if (other)
		put_birth(&end, other);
	if (ns >= 0)
		rtnl_attribute(&end, IFLA_NET_NS_FD, &ns, sizeof(ns));
	rtnl_begin(&data, 0, 0, "", 0);
	rtnl_attribute(&data, VETH_INFO_PEER, body_of(&end), body_len(&end));
	rtnl_begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof(i));
	rtnl_attribute(&m, IFLA_IFNAME, l->name, strlen(l->name) + 1);
	put_birth(&m, l);
	put_info(&m, l, &data);
	return rtnl_request(fd, &m);
}

/* The other one is inside, or in another namespace of the image, or on the host, under another name
 * if its own is taken. */
static int make_veth(int fd, const struct net_host *host, const Reprise__Network *all,
		     const Reprise__NetLink *l)
{
	const Reprise__NetLink *other = l->link ? link_of(all, l->link) : NULL;
	int r = -EEXIST, ns = -EBADF;

	if (l->elsewhere) {
		other = host->pairs ? net_pair_other(host->pairs, l, &ns) : NULL;
		return other ? make_pair(fd, ns, l, other, other->name) : 0;
	}
	if (other)
		return make_pair(fd, -EBADF, l, other, other->name);
	if (*l->outside->name)
		r = make_pair(fd, host->ns, l, NULL, l->outside->name);
	return r == -EEXIST ? make_pair(fd, host->ns, l, NULL, "reprise%d") : r;
}

/* What stands on an interface of the host finds it by the number of the host's namespace. */
static int put_lower(int fd, const struct net_host *host, const Reprise__NetLink *l,
		     struct rtnl_message *m)
{
	int lower = l->link, id;

	if (l->outside) {
		const struct rtgenmsg body = {};
		const int32_t any = -1;
		struct rtnl_message ask;

		lower = net_index_of(host->rtnl, l->outside->name);
		if (lower < 0)
			return lower;
		rtnl_begin(&ask, RTM_NEWNSID, 0, &body, sizeof(body));
		rtnl_attribute(&ask, NETNSA_FD, &host->ns, sizeof(host->ns));
		rtnl_attribute(&ask, NETNSA_NSID, &any, sizeof(any));
		ignore(rtnl_request(fd, &ask), "it may have one already");
		id = net_id_of(fd, host->ns);
		if (id < 0)
			return id;
		rtnl_attribute(m, IFLA_LINK_NETNSID, &id, sizeof(id));
	}
	if (lower)
		rtnl_attribute(m, IFLA_LINK, &lower, sizeof(lower));
	return 0;
}

static int make_one(int fd, const struct net_host *host, const Reprise__Network *all,
		    const Reprise__NetLink *l)
{
	const struct ifinfomsg i = {.ifi_index = l->index};
	struct rtnl_message m;
	int r;

	if (!strcmp(l->kind, "veth"))
		return make_veth(fd, host, all, l);
	rtnl_begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof(i));
	rtnl_attribute(&m, IFLA_IFNAME, l->name, strlen(l->name) + 1);
	put_birth(&m, l);
	put_info(&m, l, NULL);
	r = put_lower(fd, host, l, &m);
	return r < 0 ? r : rtnl_request(fd, &m);
}

static int add_names(int fd, const Reprise__NetLink *l)
{
	const struct ifinfomsg i = {.ifi_index = l->index};
	struct rtnl_message m, list;

	if (!l->n_other_names)
		return 0;
	rtnl_begin(&list, 0, 0, "", 0);
	for (size_t n = 0; n < l->n_other_names; n++)
		rtnl_attribute(&list, IFLA_ALT_IFNAME, l->other_names[n],
			       strlen(l->other_names[n]) + 1);
	rtnl_begin(&m, RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof(i));
	rtnl_attribute(&m, IFLA_PROP_LIST | NLA_F_NESTED, body_of(&list), body_len(&list));
	return rtnl_request(fd, &m);
}

static int enslave(int fd, const Reprise__NetLink *l)
{
	const struct ifinfomsg i = {.ifi_index = l->index};
	struct rtnl_message m;

	if (!l->master)
		return 0;
	rtnl_begin(&m, RTM_SETLINK, 0, &i, sizeof(i));
	rtnl_attribute(&m, IFLA_MASTER, &l->master, sizeof(l->master));
	return rtnl_request(fd, &m);
}

static int settle_one(int fd, const Reprise__NetLink *l, struct error *e)
{
	int r = net_attributes_set(fd, l->index, &l->attributes, e);

	if (r < 0)
		return r;
	r = net_mode_set(fd, l->index, NET_MODE_NONE);
	if (r >= 0)
		r = add_names(fd, l);
	if (r >= 0)
		r = enslave(fd, l);
	if (r >= 0)
		r = net_kind_settle(fd, l, e);
	return r < 0 && !e->code ? error_errno(e, r, E_RESTORE, "cannot set it up") : r;
}

/*
 * IPv6 takes an interface for ready, and the kernel sends by it at all, when the news of its
 * carrier has got round (linkwatch_do_dev() under the lock of all networks, which may take seconds;
 * what is sent before is dropped by noop_qdisc). A carrier that is not there yet may depend on
 * others.
 */
static int await_running(int fd, const Reprise__NetLink *l, int carrier_ms)
{
	const struct ifinfomsg all = {};

	for (int i = 0; i < PATIENCE_MS && l->running; i++) {
		struct search q = {.index = l->index};
		int r = rtnl_dump(fd, RTM_GETLINK, &all, sizeof(all), match_name, &q);

		if (r < 0 || (q.flags & IFF_RUNNING && q.flags & IFF_LOWER_UP))
			return r;
		if (!(q.flags & IFF_LOWER_UP) && i >= carrier_ms)
			break;
		patience_pause();
	}
	return 0;
}

typedef int (*link_fn)(int fd, const struct net_host *host, const Reprise__Network *m,
		       const Reprise__NetLink *l);

static int flags_one(int fd, const struct net_host *host, const Reprise__Network *m,
		     const Reprise__NetLink *l)
{
	(void)host;
	(void)m;
	return net_flags_set(fd, l->index, l->flags);
}

/* What stands on another that is not there yet waits for the next round. */
static int in_rounds(int fd, const struct net_host *host, const Reprise__Network *m, link_fn fn,
		     const char *what, struct error *e)
{
	_cleanup_(free_ptr) bool *done = calloc(m->n_links ?: 1, sizeof(*done));
	size_t left = m->n_links;

	if (!done)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an interface");
	while (left) {
		const Reprise__NetLink *failed = NULL;
		size_t before = left;
		int r, why = 0;

		for (size_t i = 0; i < m->n_links; i++) {
			if (done[i])
				continue;
			r = fn(fd, host, m, m->links[i]);
			done[i] = r >= 0;
			left -= r >= 0;
			failed = r < 0 ? m->links[i] : failed;
			why = r < 0 ? r : why;
		}
		if (left == before && failed)
			return error_object(e, error_errno(e, why, E_RESTORE, "cannot %s", what),
					    "network interface %s", failed->name);
	}
	return 0;
}

/* The loopback is there; the second end of a pair came with the first. */
static int make_if_new(int fd, const struct net_host *host, const Reprise__Network *m,
		       const Reprise__NetLink *l)
{
	bool second = !strcmp(l->kind, "veth") && l->link && l->link < l->index;

	return !*l->kind || second ? 0 : make_one(fd, host, m, l);
}

static int by_port(const void *a, const void *b)
{
	const Reprise__NetLink *x = *(Reprise__NetLink *const *)a,
			       *y = *(Reprise__NetLink *const *)b;

	if (x->port_number != y->port_number)
		return x->port_number < y->port_number ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

/* A bridge gives each port the lowest number that is free (find_portno()). */
static int settle_all(int fd, const Reprise__Network *m, struct error *e)
{
	_cleanup_(free_ptr) Reprise__NetLink **links = calloc(m->n_links, sizeof(*links));

	if (!links)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an interface");
	memcpy(links, m->links, m->n_links * sizeof(*links));
	qsort(links, m->n_links, sizeof(*links), by_port);
	for (size_t i = 0; i < m->n_links; i++) {
		int r = settle_one(fd, links[i], e);

		if (r < 0)
			return error_object(e, r, "network interface %s", links[i]->name);
	}
	return 0;
}

int net_links_make(int fd, const struct net_host *host, const Reprise__Network *m, struct error *e)
{
	int r = in_rounds(fd, host, m, make_if_new, "make it", e);

	if (r >= 0 && host->pairs)
		net_pairs_made(host->pairs);
	return r < 0 ? r : settle_all(fd, m, e);
}

int net_links_up(int fd, const struct net_host *host, const Reprise__Network *m, struct error *e)
{
	int r = 0;

	/* The other end first: so there is a carrier from the beginning. */
	for (size_t i = 0; i < m->n_links && r >= 0; i++)
		if (m->links[i]->outside && !strcmp(m->links[i]->kind, "veth"))
			r = net_outside_restart(host, lower_of(fd, m->links[i]->index),
						m->links[i]->outside, e);
	for (size_t i = 0; i < m->n_links && r >= 0; i++)
		if (m->links[i]->elsewhere && host->pairs)
			r = net_pair_up(host->pairs, m->links[i]);
	if (r >= 0)
		r = in_rounds(fd, host, m, flags_one, "bring it up", e);
	for (size_t i = 0; i < m->n_links && r >= 0; i++)
		r = await_running(fd, m->links[i], CARRIER_MS);
	/* A bridge has its carrier of ports that may have come after it. */
	for (size_t i = 0; i < m->n_links && r >= 0; i++)
		r = await_running(fd, m->links[i], 0);
	return r < 0 && !e->code ? error_errno(e, r, E_RESTORE, "cannot set up the interfaces") : r;
}

int net_links_finish(int fd, const Reprise__Network *m, struct error *e)
{
	for (size_t i = 0; i < m->n_links; i++) {
		int r = net_mode_set(fd, m->links[i]->index, (uint8_t)m->links[i]->address_mode);

		if (r < 0)
			return error_errno(e, r, E_RESTORE, "cannot set up interface %s",
					   m->links[i]->name);
	}
	return 0;
}
