/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/net_refuse.h"

#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_acct.h>
#include <linux/netfilter/nfnetlink_cthelper.h>
#include <linux/netfilter/nfnetlink_cttimeout.h>
#include <linux/xfrm.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "net/rtnl.h"
#include "ns/attached_programs.h"
#include "ns/ebtables.h"
#include "ns/net_services.h"

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

static int any(void *arg, const struct nlmsghdr *h)
{
	const struct look *l = arg;

	(void)h;
	return refused(l->e, l->what, "");
}

/* Members of groups at the ports of a bridge that somebody has told it. */
static int members(void *arg, const struct nlmsghdr *h)
{
	const struct br_port_msg *b = NLMSG_DATA(h);
	const struct look *l = arg;
	size_t n;
	const void *list = rtnl_find(b, NLMSG_PAYLOAD(h, 0), sizeof(*b), MDBA_MDB, &n);
	struct rtnl_walk groups = {list, list ? n : 0};
	const struct rtattr *group, *a;

	while ((group = rtnl_next(&groups))) {
		struct rtnl_walk ports = {RTA_DATA(group), RTA_PAYLOAD(group)};

		while ((a = rtnl_next(&ports))) {
			const struct br_mdb_entry *m = RTA_DATA(a);

			if (RTA_PAYLOAD(a) >= sizeof(*m) && m->state == MDB_PERMANENT)
				return refused(l->e,
					       "a permanent member of a multicast group in bridge",
					       name_of(l, (int)b->ifindex));
		}
	}
	return 0;
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
	{NETLINK_ROUTE, RTM_GETMDB, sizeof(struct br_port_msg), AF_BRIDGE, members, ""},
	{NETLINK_XFRM, XFRM_MSG_GETSA, 0, 0, any, "states of IPsec"},
	{NETLINK_XFRM, XFRM_MSG_GETPOLICY, 0, 0, any, "policies of IPsec"},
};

/* What rules of iptables refer to. Asking for it may load a module: only where there are rules. */
static const struct question of_rules[] = {
	{NETLINK_NETFILTER, NFNL_SUBSYS_ACCT << 8 | NFNL_MSG_ACCT_GET, sizeof(struct nfgenmsg), 0,
	 any, "counters of nfacct"},
	{NETLINK_NETFILTER, NFNL_SUBSYS_CTNETLINK_TIMEOUT << 8 | IPCTNL_MSG_TIMEOUT_GET,
	 sizeof(struct nfgenmsg), 0, any, "time-outs of connection tracking that have a name"},
	{NETLINK_NETFILTER, NFNL_SUBSYS_CTHELPER << 8 | NFNL_MSG_CTHELPER_GET,
	 sizeof(struct nfgenmsg), 0, any, "helpers of connection tracking in user space"},
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

static int set_of_addresses(void *arg, const struct nlmsghdr *h)
{
	const struct look *l = arg;
	size_t n;
	const char *name = rtnl_find(NLMSG_DATA(h), NLMSG_PAYLOAD(h, 0), sizeof(struct nfgenmsg),
				     IPSET_ATTR_SETNAME, &n);

	return refused(l->e, "a set of ipset,", name && n && !name[n - 1] ? name : "?");
}

/* A socket tells whether the kernel has them without loading a module for it. */
static int sets_of_addresses(struct look *l)
{
	_cleanup_(close_fd) int any_socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	_cleanup_(close_fd) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	struct ip_set_req_version version = {.op = IP_SET_OP_VERSION};
	const struct nfgenmsg g = {};
	const uint8_t protocol = IPSET_PROTOCOL_MIN;
	socklen_t len = sizeof(version);
	struct rtnl_message m;
	int r;

	if (getsockopt(any_socket, SOL_IP, SO_IP_SET, &version, &len) < 0)
		return 0;
	rtnl_begin(&m, NFNL_SUBSYS_IPSET << 8 | IPSET_CMD_LIST, NLM_F_DUMP, &g, sizeof(g));
	rtnl_attribute(&m, IPSET_ATTR_PROTOCOL, &protocol, sizeof(protocol));
	r = rtnl_dump_message(fd, &m, set_of_addresses, l);
	return !l->e->code && (r == -EOPNOTSUPP || r == -EINVAL || r == -ENOENT) ? 0 : r;
}

/*
 * Addresses of groups that somebody has given an interface ("ip maddress"), as opposed to those of
 * which sockets are members: "number name references global address" (dev_mc_seq_show()).
 */
static int addresses_of_groups(int proc_fd, struct look *l)
{
	_cleanup_(free_ptr) char *text = NULL;
	char *at, *line, *rest = NULL;

	if (procfs_read(proc_fd, &text, NULL, "%sthread-self/net/dev_mcast",
			proc_fd < 0 ? "/proc/" : "") < 0)
		return 0;
	for (at = text; (line = strtok_r(at, "\n", &rest)); at = NULL) {
		int index, references, global;

		if (sscanf(line, "%d %*s %d %d", &index, &references, &global) == 3 && global &&
		    !net_others_have(&l->links->others, index))
			return refused(l->e, "an address of a group that was given to interface",
				       name_of(l, index));
	}
	return 0;
}

static int programs(int proc_fd, const struct look *l)
{
	const char *what = attached_to_network(proc_fd);

	if (what)
		return refused(l->e, what, "");
	vec_for_each (link, &l->links->list) {
		what = attached_to_interface((*link)->index);
		if (what)
			return refused(l->e, what, (*link)->name);
	}
	return 0;
}

int net_refuse(int proc_fd, const struct net_links *links, bool rules, struct error *e)
{
	struct look l = {.links = links, .e = e};
	int r = 0;

	for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]) && r >= 0; i++)
		r = ask(&questions[i], &l);
	for (size_t i = 0; i < sizeof(of_rules) / sizeof(of_rules[0]) && r >= 0 && rules; i++)
		r = ask(&of_rules[i], &l);
	if (r >= 0)
		r = sets_of_addresses(&l);
	if (r >= 0)
		r = addresses_of_groups(proc_fd, &l);
	if (r >= 0)
		r = programs(proc_fd, &l);
	if (r >= 0)
		r = ebtables_refuse(proc_fd, e);
	if (r >= 0)
		r = net_services_refuse(proc_fd, e);
	return r >= 0 || e->code
		       ? r
		       : error_errno(e, r, E_SYSTEM, "cannot list what the network namespace has");
}
