/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/net_refuse.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>
#include <linux/pkt_sched.h>
#include <linux/xfrm.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "net/rtnl.h"

struct look {
	const struct net_links *links;
	struct error *e;
	const char *what;
};

static int refused(struct error *e, const char *what, const char *name)
{
	return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
			 "the network namespace has %s%s%s, which cannot be saved", what,
			 *name ? " " : "", name);
}

static const char *name_of(const struct look *l, int index)
{
	vec_for_each (link, &l->links->list)
		if ((*link)->index == index)
			return (*link)->name;
	return "";
}

/* Those that nobody has set have no handle. */
static int queueing(void *arg, const struct nlmsghdr *h)
{
	const struct tcmsg *t = NLMSG_DATA(h);
	const struct look *l = arg;
	char what[80];
	size_t n;
	const char *kind = rtnl_find(t, NLMSG_PAYLOAD(h, 0), sizeof(*t), TCA_KIND, &n);

	if (h->nlmsg_type != RTM_NEWQDISC || !t->tcm_handle ||
	    net_others_have(&l->links->others, t->tcm_ifindex))
		return 0;
	snprintf(what, sizeof(what), "a queueing discipline (%.30s) of interface",
		 kind && n && !kind[n - 1] ? kind : "?");
	return refused(l->e, what, name_of(l, t->tcm_ifindex));
}

static int any(void *arg, const struct nlmsghdr *h)
{
	const struct look *l = arg;

	(void)h;
	return refused(l->e, l->what, "");
}

static bool is_own_address(const struct net_links *links, const void *address, size_t len)
{
	vec_for_each (link, &links->list) {
		size_t n;
		const void *own = rtnl_find((*link)->attributes.data, (*link)->attributes.len, 0,
					    IFLA_ADDRESS, &n);

		if (own && n == len && !memcmp(own, address, n))
			return true;
	}
	return false;
}

/* Addresses behind the ports of a bridge that somebody has told it. */
static int forwarding(void *arg, const struct nlmsghdr *h)
{
	const struct ndmsg *n = NLMSG_DATA(h);
	const struct look *l = arg;
	size_t len;
	const void *address = rtnl_find(n, NLMSG_PAYLOAD(h, 0), sizeof(*n), NDA_LLADDR, &len);

	if (n->ndm_flags & NTF_SELF || !(n->ndm_state & (NUD_NOARP | NUD_PERMANENT)) || !address ||
	    is_own_address(l->links, address, len))
		return 0;
	return refused(l->e, "a permanent address in a bridge at interface",
		       name_of(l, n->ndm_ifindex));
}

struct question {
	int protocol; /* of netlink */
	uint16_t type;
	size_t size;
	uint8_t family; /* every request begins with it */
	rtnl_each each;
	const char *what;
};

static const struct question questions[] = {
	{NETLINK_ROUTE, RTM_GETQDISC, sizeof(struct tcmsg), 0, queueing, ""},
	{NETLINK_ROUTE, RTM_GETNEXTHOP, sizeof(struct nhmsg), 0, any,
	 "next hops that have a number"},
	{NETLINK_ROUTE, RTM_GETNEIGH, sizeof(struct ndmsg), AF_BRIDGE, forwarding, ""},
	{NETLINK_XFRM, XFRM_MSG_GETSA, 0, 0, any, "states of IPsec"},
	{NETLINK_XFRM, XFRM_MSG_GETPOLICY, 0, 0, any, "policies of IPsec"},
};

static int ask(const struct question *q, struct look *l)
{
	_cleanup_(close_fd) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, q->protocol);
	uint8_t body[64] = {q->family};
	int r;

	/* What the kernel has not got nobody can have set. */
	if (fd < 0)
		return errno == EPROTONOSUPPORT ? 0 : -errno;
	l->what = q->what;
	for (int i = 0; i < 10; i++) {
		r = rtnl_dump(fd, q->type, body, q->size, q->each, l);
		if (r != -EAGAIN)
			break;
	}
	return !l->e->code && (r == -EOPNOTSUPP || r == -EINVAL || r == -ENOENT) ? 0 : r;
}

/* A table of iptables is there once somebody has looked at it; its rules, if any, are not ours. */
static int old_tables(int proc_fd, struct error *e)
{
	static const char *const lists[] = {"ip_tables_names", "ip6_tables_names",
					    "arp_tables_names"};

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		_cleanup_(close_fd) int fd = -EBADF;
		char path[128], names[256];
		ssize_t n;

		snprintf(path, sizeof(path), "%sthread-self/net/%s", proc_fd < 0 ? "/proc/" : "",
			 lists[i]);
		fd = openat(proc_fd < 0 ? AT_FDCWD : proc_fd, path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? 0 : read(fd, names, sizeof(names) - 1);
		if (n <= 0)
			continue;
		names[n] = '\0';
		names[strcspn(names, "\n")] = '\0';
		return refused(e, "rules of iptables, table", names);
	}
	return 0;
}

int net_refuse(int proc_fd, const struct net_links *links, struct error *e)
{
	struct look l = {.links = links, .e = e};

	for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
		int r = ask(&questions[i], &l);

		if (r < 0)
			return e->code ? r
				       : error_errno(e, r, E_SYSTEM,
						     "cannot list what the network namespace has");
	}
	return old_tables(proc_fd, e);
}
