/* SPDX-License-Identifier: Apache-2.0 */
/* The interfaces of a network namespace. */
#include "ns/net_links.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/net_namespace.h>
#include <linux/veth.h>
#include <linux/if_arp.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/rtnl.h"
#include "ns/net_kinds.h"
#include "ns/net_outside.h"

#define LINKS_MAX  10000
#define RUNNING_MS 1000
#define MODE_NONE  1 /* IN6_ADDR_GEN_MODE_NONE */

struct look {
	int fd, host_id; /* host_id: by which the host is known in the namespace; -1: none yet */
	const struct net_host *host;
	struct net_links *ret;
	struct scratch *s;
	struct error *e;
};

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an interface");
}

int net_host_open(struct net_host *host, struct error *e)
{
	host->ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	host->rtnl = rtnl_open();
	if (host->ns < 0 || host->rtnl < 0)
		return error_errno(e, -errno, E_SYSTEM, "cannot ask about interfaces");
	return 0;
}

void net_host_close(struct net_host *host)
{
	close_fd(&host->ns);
	close_fd(&host->rtnl);
}

static uint32_t number(const void *payload, size_t len, size_t fixed, uint16_t type)
{
	size_t n;
	const void *at = rtnl_find(payload, len, fixed, type, &n);
	uint32_t value = 0;

	if (at && n <= sizeof(value))
		memcpy(&value, at, n); /* little endian */
	return value;
}

/* ---- checkpoint ---- */

static int take_other_names(struct look *l, Reprise__NetLink *m, const void *list, size_t len)
{
	const char *bytes = list;
	size_t at = 0;

	if (!rtnl_valid(list, len, 0))
		return -EPROTO;
	m->other_names = scratch_alloc(l->s, len * sizeof(*m->other_names) + 1);
	if (!m->other_names)
		return -ENOMEM;
	while (at < len) {
		const struct rtattr *a = (const struct rtattr *)(bytes + at);

		if ((a->rta_type & NLA_TYPE_MASK) == IFLA_ALT_IFNAME && RTA_PAYLOAD(a)) {
			char *name = scratch_copy(l->s, RTA_DATA(a), RTA_PAYLOAD(a));

			if (!name)
				return -ENOMEM;
			name[RTA_PAYLOAD(a) - 1] = '\0';
			m->other_names[m->n_other_names++] = name;
		}
		at += RTA_ALIGN(a->rta_len);
	}
	return 0;
}

static int named(struct look *l, const Reprise__NetLink *m, int r)
{
	return r < 0 ? error_object(l->e, r, "network interface %s", m->name) : r;
}

static int refuse(struct look *l, const Reprise__NetLink *m, const char *what)
{
	return named(l, m, error_set(l->e, -EOPNOTSUPP, E_CONTAINER_STATE, "%s", what));
}

static int take_inet6(struct look *l, Reprise__NetLink *m, const void *spec, size_t len)
{
	static const uint8_t none[16];
	size_t n, unused;
	const void *inet6 = rtnl_find(spec, len, 0, AF_INET6, &n);
	const void *token = inet6 ? rtnl_find(inet6, n, 0, IFLA_INET6_TOKEN, &unused) : NULL;

	m->address_mode = inet6 ? number(inet6, n, 0, IFLA_INET6_ADDR_GEN_MODE) : MODE_NONE;
	if (token && unused == sizeof(none) && memcmp(token, none, sizeof(none)) != 0)
		return refuse(l, m, "an IPv6 token cannot be saved");
	return 0;
}

/* Who is at the other end, or below. */
static int take_lower(struct look *l, Reprise__NetLink *m, const struct ifinfomsg *i, size_t len)
{
	int lower = (int)number(i, len, sizeof(*i), IFLA_LINK);
	int32_t where;
	size_t n;
	const void *id = rtnl_find(i, len, sizeof(*i), IFLA_LINK_NETNSID, &n);

	if (!strcmp(m->kind, "veth") && !lower)
		return refuse(l, m, "its other end is in a namespace that cannot be seen");
	if (!strcmp(m->kind, "veth") || net_kind_of(m->kind)->stands_on_another)
		m->link = lower;
	if (!id || n != sizeof(where) || !m->link)
		return 0;
	memcpy(&where, id, sizeof(where));
	if (where < 0 || where != l->host_id)
		return refuse(l, m, "it leads to a network namespace other than that of reprise");
	m->link = 0;
	return named(l, m, net_outside_look(l->host, lower, &m->outside, l->s, l->e));
}

static int take_parts(struct look *l, Reprise__NetLink *m, const struct ifinfomsg *i, size_t len)
{
	size_t n;
	const void *at = rtnl_find(i, len, sizeof(*i), IFLA_XDP, &n);
	int r = 0;

	if (at && number(at, n, 0, IFLA_XDP_ATTACHED) != XDP_ATTACHED_NONE)
		return refuse(l, m, "an XDP program is attached to it");
	if (number(i, len, sizeof(*i), IFLA_PROTO_DOWN))
		return refuse(l, m, "it is held down (protodown)");
	at = rtnl_find(i, len, sizeof(*i), IFLA_AF_SPEC, &n);
	if (at)
		r = take_inet6(l, m, at, n);
	at = rtnl_find(i, len, sizeof(*i), IFLA_PROP_LIST, &n);
	if (r >= 0 && at)
		r = take_other_names(l, m, at, n);
	if (r >= 0)
		r = net_attributes_take(i, len, &m->attributes, l->s);
	return r;
}

/* An interface without descriptor stays when the program ends: nobody makes it again. */
static int take_tun(struct look *l, const Reprise__NetLink *m, const void *info, size_t len)
{
	size_t n;
	const void *data = rtnl_find(info, len, 0, IFLA_INFO_DATA, &n);
	int *slot;

	if (!data || number(data, n, 0, IFLA_TUN_PERSIST))
		return refuse(l, m, "a persistent tun or tap device cannot be saved");
	slot = vec_push(&l->ret->others.indexes);
	if (!slot)
		return -ENOMEM;
	*slot = m->index;
	return 1;
}

static int take_kind(struct look *l, Reprise__NetLink *m, const struct ifinfomsg *i, size_t len)
{
	size_t n, kind_len = 0;
	const void *info = rtnl_find(i, len, sizeof(*i), IFLA_LINKINFO, &n);
	const char *kind = info ? rtnl_find(info, n, 0, IFLA_INFO_KIND, &kind_len) : NULL;

	if (i->ifi_type == ARPHRD_LOOPBACK && !kind)
		return 0;
	if (kind && kind_len == sizeof("tun") && !memcmp(kind, "tun", kind_len))
		return take_tun(l, m, info, n);
	if (!kind)
		return refuse(l, m, "a device of the machine cannot be saved");
	return named(l, m, net_kind_take(m, info, n, l->s, l->e));
}

/* Interfaces that some kernels make in every network namespace, and that nobody uses. */
static bool made_by_kernel(const char *name, const struct ifinfomsg *i)
{
	static const char *const names[] = {"tunl0", "gre0",	"gretap0",  "erspan0", "ip_vti0",
					    "sit0",  "ip6tnl0", "ip6_vti0", "ip6gre0", NULL};

	for (size_t at = 0; names[at]; at++)
		if (!strcmp(name, names[at]))
			return !(i->ifi_flags & IFF_UP);
	return false;
}

static int take_link(void *arg, const struct nlmsghdr *h)
{
	const struct ifinfomsg *i = NLMSG_DATA(h);
	size_t len = NLMSG_PAYLOAD(h, 0), n;
	struct look *l = arg;
	Reprise__NetLink *m, **slot;
	const char *name = rtnl_find(i, len, sizeof(*i), IFLA_IFNAME, &n);
	int r;

	if (h->nlmsg_type != RTM_NEWLINK || !name || !n || name[n - 1] || made_by_kernel(name, i))
		return 0;
	m = scratch_message(l->s, Reprise__NetLink, reprise__net_link__init);
	if (!m || !(m->name = scratch_string(l->s, name)))
		return -ENOMEM;
	m->index = i->ifi_index;
	m->flags = i->ifi_flags & NET_LINK_FLAGS;
	m->master = (int)number(i, len, sizeof(*i), IFLA_MASTER);
	m->running = i->ifi_flags & IFF_LOWER_UP && i->ifi_flags & IFF_UP;
	m->tx_queues = number(i, len, sizeof(*i), IFLA_NUM_TX_QUEUES);
	m->rx_queues = number(i, len, sizeof(*i), IFLA_NUM_RX_QUEUES);
	r = take_kind(l, m, i, len);
	if (r)
		return r < 0 ? r : 0;
	r = take_lower(l, m, i, len);
	if (r >= 0)
		r = take_parts(l, m, i, len);
	slot = r >= 0 ? vec_push(&l->ret->list) : NULL;
	if (r < 0 || !slot || l->ret->list.n > LINKS_MAX)
		return r < 0 ? r : -ENOMEM;
	*slot = m;
	return 0;
}

/* By what number the namespace of the conversation knows another; negative: by none. */
static int id_of_namespace(int fd, int ns)
{
	struct {
		struct nlmsghdr h;
		struct rtgenmsg body;
		uint8_t attributes[256];
	} answer;
	const struct rtgenmsg body = {};
	struct rtnl_message m;
	const void *id;
	int32_t value;
	ssize_t got;
	size_t n;

	rtnl_begin(&m, RTM_GETNSID, 0, &body, sizeof(body));
	rtnl_attribute(&m, NETNSA_FD, &ns, sizeof(ns));
	if (send(fd, &m.header, m.header.nlmsg_len, 0) < 0)
		return -errno;
	got = recv(fd, &answer, sizeof(answer), 0);
	if (got < (ssize_t)NLMSG_LENGTH(sizeof(body)) || answer.h.nlmsg_type != RTM_NEWNSID)
		return -ENOENT;
	id = rtnl_find(NLMSG_DATA(&answer.h), NLMSG_PAYLOAD(&answer.h, 0), sizeof(body),
		       NETNSA_NSID, &n);
	if (!id || n != sizeof(value))
		return -ENOENT;
	memcpy(&value, id, sizeof(value));
	return value;
}

int net_links_look(int fd, const struct net_host *host, struct net_links *ret, struct scratch *s,
		   struct error *e)
{
	struct look l = {.fd = fd, .host = host, .ret = ret, .s = s, .e = e};
	const struct ifinfomsg all = {};
	int r;

	l.host_id = id_of_namespace(fd, host->ns);
	for (int i = 0; i < 10; i++) {
		ret->list.n = ret->others.indexes.n = 0;
		r = rtnl_dump(fd, RTM_GETLINK, &all, sizeof(all), take_link, &l);
		if (r != -EAGAIN)
			break;
	}
	if (r < 0 && !e->code)
		error_errno(e, r, E_SYSTEM, "cannot list the network interfaces");
	return r;
}

/* ---- restart ---- */

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
		    ? !l->outside == !l->link ||
			      (l->link && (link_of(m, l->link)->link != l->index ||
					   strcmp(link_of(m, l->link)->kind, "veth")))
	    : kind->stands_on_another ? !l->outside == !l->link
				      : l->outside || l->link)
		return invalid(e, "no other end");
	for (size_t i = 0; i < l->n_other_names; i++)
		if (strlen(l->other_names[i]) > 127)
			return invalid(e, "a name that is too long");
	return l->outside ? net_outside_validate(l->outside, e) : 0;
}

int net_links_validate(const Reprise__Network *m, struct error *e)
{
	if (!m->n_links || *m->links[0]->kind || m->links[0]->index != 1 || m->n_links > LINKS_MAX)
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
		q->lower = (int)number(i, NLMSG_PAYLOAD(h, 0), sizeof(*i), IFLA_LINK);
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

static int set_mode(int fd, int index, uint8_t mode)
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

/* Both ends are made at once. */
static int make_pair(int fd, const struct net_host *host, const Reprise__NetLink *l,
		     const Reprise__NetLink *other, const char *name)
{
	const struct ifinfomsg i = {.ifi_index = l->index};
	const struct ifinfomsg peer = {.ifi_index = other ? other->index : 0};
	struct rtnl_message m, end, data;

	rtnl_begin(&end, 0, 0, &peer, sizeof(peer));
	rtnl_attribute(&end, IFLA_IFNAME, name, strlen(name) + 1);
	if (other)
		put_birth(&end, other);
	else
		rtnl_attribute(&end, IFLA_NET_NS_FD, &host->ns, sizeof(host->ns));
	rtnl_begin(&data, 0, 0, "", 0);
	rtnl_attribute(&data, VETH_INFO_PEER, body_of(&end), body_len(&end));
	rtnl_begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof(i));
	rtnl_attribute(&m, IFLA_IFNAME, l->name, strlen(l->name) + 1);
	put_birth(&m, l);
	put_info(&m, l, &data);
	return rtnl_request(fd, &m);
}

/* The other one is inside, or on the host, under another name if its own is taken. */
static int make_veth(int fd, const struct net_host *host, const Reprise__Network *all,
		     const Reprise__NetLink *l)
{
	const Reprise__NetLink *other = l->link ? link_of(all, l->link) : NULL;
	int r = -EEXIST;

	if (other)
		return make_pair(fd, host, l, other, other->name);
	if (*l->outside->name)
		r = make_pair(fd, host, l, NULL, l->outside->name);
	return r == -EEXIST ? make_pair(fd, host, l, NULL, "reprise%d") : r;
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
		id = id_of_namespace(fd, host->ns);
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
	r = set_mode(fd, l->index, MODE_NONE);
	if (r >= 0)
		r = add_names(fd, l);
	if (r >= 0)
		r = enslave(fd, l);
	if (r >= 0)
		r = net_kind_settle(fd, l, e);
	return r < 0 && !e->code ? error_errno(e, r, E_RESTORE, "cannot set it up") : r;
}

/* IPv6 takes an interface for ready when the news has got round. */
static int await_running(int fd, const Reprise__NetLink *l)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	const struct ifinfomsg all = {};

	for (int i = 0; i < RUNNING_MS && l->running; i++) {
		struct search q = {.index = l->index};
		int r = rtnl_dump(fd, RTM_GETLINK, &all, sizeof(all), match_name, &q);

		if (r < 0 || (q.flags & IFF_RUNNING && q.flags & IFF_LOWER_UP))
			return r;
		nanosleep(&pause, NULL);
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
		return no_memory(e);
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

static int settle_all(int fd, const Reprise__Network *m, struct error *e)
{
	for (size_t i = 0; i < m->n_links; i++) {
		int r = settle_one(fd, m->links[i], e);

		if (r < 0)
			return error_object(e, r, "network interface %s", m->links[i]->name);
	}
	return 0;
}

int net_links_make(int fd, const struct net_host *host, const Reprise__Network *m, struct error *e)
{
	int r = in_rounds(fd, host, m, make_if_new, "make it", e);

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
	if (r >= 0)
		r = in_rounds(fd, host, m, flags_one, "bring it up", e);
	for (size_t i = 0; i < m->n_links && r >= 0; i++)
		r = await_running(fd, m->links[i]);
	return r < 0 && !e->code ? error_errno(e, r, E_RESTORE, "cannot set up the interfaces") : r;
}

int net_links_finish(int fd, const Reprise__Network *m, struct error *e)
{
	for (size_t i = 0; i < m->n_links; i++) {
		int r = set_mode(fd, m->links[i]->index, (uint8_t)m->links[i]->address_mode);

		if (r < 0)
			return error_errno(e, r, E_RESTORE, "cannot set up interface %s",
					   m->links[i]->name);
	}
	return 0;
}
