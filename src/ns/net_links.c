/* SPDX-License-Identifier: Apache-2.0 */
/* The interfaces of a network namespace. */
#include "ns/net_links.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/net_namespace.h>
#include <linux/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/rtnl.h"
#include "ns/net_kinds.h"
#include "ns/net_outside.h"
#include "ns/net_pairs.h"

#define LOCK_TRIES 5000

struct look {
	int fd, host_id; /* host_id: by which the host is known in the namespace; -1: none yet */
	const struct net_host *host;
	struct net_links *ret;
	struct scratch *s;
	struct error *e;
};

int net_host_open(struct net_host *host, int proc_fd, struct error *e)
{
	host->ns = openat(proc_fd, "self/ns/net", O_RDONLY | O_CLOEXEC);
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

/* Everybody who opens the namespace locks the same inode (ns_get_path()), and it goes with him. */
void net_host_lock(const struct net_host *host)
{
	const struct timespec pause = {.tv_nsec = 2000000};

	for (int i = 0; i < LOCK_TRIES && flock(host->ns, LOCK_EX | LOCK_NB) < 0; i++)
		nanosleep(&pause, NULL);
}

void net_host_unlock(const struct net_host *host)
{
	(void)flock(host->ns, LOCK_UN);
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

	m->address_mode =
		inet6 ? rtnl_number(inet6, n, 0, IFLA_INET6_ADDR_GEN_MODE) : NET_MODE_NONE;
	if (token && unused == sizeof(none) && memcmp(token, none, sizeof(none)) != 0)
		return refuse(l, m, "an IPv6 token cannot be saved");
	return 0;
}

/* Who is at the other end, or below. */
static int take_lower(struct look *l, Reprise__NetLink *m, const struct ifinfomsg *i, size_t len)
{
	int lower = (int)rtnl_number(i, len, sizeof(*i), IFLA_LINK);
	int32_t where;
	size_t n;
	const void *id = rtnl_find(i, len, sizeof(*i), IFLA_LINK_NETNSID, &n);

	if (!strcmp(m->kind, "veth") && !lower)
		return refuse(l, m, "its other end is in a namespace that cannot be seen");
	if (!strcmp(m->kind, "veth") || net_kind_of(m->kind)->stands_on_another)
		m->link = lower;
	if (id && strcmp(m->kind, "veth") && !net_kind_of(m->kind)->stands_on_another)
		return refuse(l, m, "it sends by way of another network namespace");
	if (!id || n != sizeof(where) || !m->link)
		return 0;
	memcpy(&where, id, sizeof(where));
	if (where >= 0 && !strcmp(m->kind, "veth") && (where != l->host_id || l->host->ours)) {
		m->link = 0;
		return net_pair_note(m, where, lower, l->s);
	}
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

	if (at && rtnl_number(at, n, 0, IFLA_XDP_ATTACHED) != XDP_ATTACHED_NONE)
		return refuse(l, m, "an XDP program is attached to it");
	if (rtnl_number(i, len, sizeof(*i), IFLA_PROTO_DOWN))
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

static int leave(struct look *l, int index, const char *name, bool tun)
{
	struct net_other *other = vec_push(&l->ret->others.list);

	if (!other)
		return -ENOMEM;
	other->index = index;
	other->tun = tun;
	snprintf(other->name, sizeof(other->name), "%s", name);
	return 1;
}

/* It comes with its descriptor; without one it stays when the program ends, and nobody makes it. */
static int take_tun(struct look *l, const Reprise__NetLink *m, const void *info, size_t len)
{
	size_t n;
	const void *data = rtnl_find(info, len, 0, IFLA_INFO_DATA, &n);

	if (!data || rtnl_number(data, n, 0, IFLA_TUN_PERSIST))
		return refuse(l, m, "a persistent tun or tap device cannot be saved");
	return leave(l, m->index, m->name, true);
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

	if (h->nlmsg_type != RTM_NEWLINK || !name || !n || name[n - 1])
		return 0;
	if (made_by_kernel(name, i)) {
		r = leave(l, i->ifi_index, name, false);
		return r < 0 ? r : 0;
	}
	m = scratch_message(l->s, Reprise__NetLink, reprise__net_link__init);
	if (!m || !(m->name = scratch_string(l->s, name)))
		return -ENOMEM;
	m->index = i->ifi_index;
	m->flags = i->ifi_flags & NET_LINK_FLAGS;
	m->master = (int)rtnl_number(i, len, sizeof(*i), IFLA_MASTER);
	m->running = i->ifi_flags & IFF_LOWER_UP && i->ifi_flags & IFF_UP;
	m->tx_queues = rtnl_number(i, len, sizeof(*i), IFLA_NUM_TX_QUEUES);
	m->rx_queues = rtnl_number(i, len, sizeof(*i), IFLA_NUM_RX_QUEUES);
	r = take_kind(l, m, i, len);
	if (r)
		return r < 0 ? r : 0;
	r = take_lower(l, m, i, len);
	if (r >= 0)
		r = take_parts(l, m, i, len);
	slot = r >= 0 ? vec_push(&l->ret->list) : NULL;
	if (r < 0 || !slot || l->ret->list.n > NET_LINKS_MAX)
		return r < 0 ? r : -ENOMEM;
	*slot = m;
	return 0;
}

/* By what number the namespace of the conversation knows another; negative: by none. */
int net_id_of(int fd, int ns)
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

static int pass_over(void *arg, const struct nlmsghdr *h)
{
	(void)arg;
	(void)h;
	return 0;
}

int net_links_look(int fd, const struct net_host *host, struct net_links *ret, struct scratch *s,
		   struct error *e)
{
	struct look l = {.fd = fd, .host = host, .ret = ret, .s = s, .e = e};
	const struct ifinfomsg all = {};
	int r;

	l.host_id = net_id_of(fd, host->ns);
	/* It gets one when an interface that leads there is looked at (rtnl_fill_link_netnsid()).
	 */
	if (l.host_id < 0 && rtnl_dump(fd, RTM_GETLINK, &all, sizeof(all), pass_over, NULL) >= 0)
		l.host_id = net_id_of(fd, host->ns);
	for (int i = 0; i < 10; i++) {
		ret->list.n = ret->others.list.n = 0;
		r = rtnl_dump(fd, RTM_GETLINK, &all, sizeof(all), take_link, &l);
		if (r != -EAGAIN)
			break;
	}
	if (r < 0 && !e->code)
		error_errno(e, r, E_SYSTEM, "cannot list the network interfaces");
	return r;
}
