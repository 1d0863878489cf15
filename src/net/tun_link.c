/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interfaces of tun and tap descriptors. One that persists, or that somebody else has kept, is left
 * as it is; one that has gone with its descriptors is made again: address, MTU, queue length,
 * state, owner, bridge, and with their addresses and routes.
 */
#include "net/tun.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/vec.h"
#include "net/rtnl.h"

#define KEPT_FLAGS (IFF_UP | IFF_DEBUG | IFF_NOARP | IFF_PROMISC | IFF_ALLMULTI | IFF_MULTICAST)
#define BYTES_MAX  4096

struct look {
	const char *name;
	int index;
	Reprise__TunLink *link;
	struct scratch *scratch;
	VEC(ProtobufCBinaryData) messages;
};

static int bad(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an interface");
}

/* ---- checkpoint ---- */

static void take_kind(Reprise__TunLink *m, const void *info, size_t len)
{
	size_t data_len, unused;
	const void *data = rtnl_find(info, len, 0, IFLA_INFO_DATA, &data_len);

	if (!data)
		return;
	m->has_kind = true;
	m->has_owner = rtnl_find(data, data_len, 0, IFLA_TUN_OWNER, &unused) != NULL;
	m->owner = rtnl_number(data, data_len, 0, IFLA_TUN_OWNER);
	m->has_group = rtnl_find(data, data_len, 0, IFLA_TUN_GROUP, &unused) != NULL;
	m->group = rtnl_number(data, data_len, 0, IFLA_TUN_GROUP);
	m->packet_information = rtnl_number(data, data_len, 0, IFLA_TUN_PI);
	m->persistent = rtnl_number(data, data_len, 0, IFLA_TUN_PERSIST);
}

static int take_link(void *arg, const struct nlmsghdr *h)
{
	const struct ifinfomsg *i = NLMSG_DATA(h);
	size_t len = NLMSG_PAYLOAD(h, 0), n;
	struct look *l = arg;
	Reprise__TunLink *m = l->link;
	const void *at = rtnl_find(i, len, sizeof(*i), IFLA_IFNAME, &n);

	if (h->nlmsg_type != RTM_NEWLINK || !at || strncmp(at, l->name, n) != 0)
		return 0;
	l->index = i->ifi_index;
	m->index = (uint32_t)i->ifi_index;
	m->flags = i->ifi_flags & KEPT_FLAGS;
	m->type = i->ifi_type;
	m->mtu = rtnl_number(i, len, sizeof(*i), IFLA_MTU);
	m->queue_length = rtnl_number(i, len, sizeof(*i), IFLA_TXQLEN);
	m->master_index = rtnl_number(i, len, sizeof(*i), IFLA_MASTER);
	m->no_carrier = !rtnl_number(i, len, sizeof(*i), IFLA_CARRIER);
	at = rtnl_find(i, len, sizeof(*i), IFLA_ADDRESS, &n);
	if (at) {
		m->address.data = scratch_copy(l->scratch, at, n);
		m->address.len = m->address.data ? n : 0;
	}
	at = rtnl_find(i, len, sizeof(*i), IFLA_LINKINFO, &n);
	if (at)
		take_kind(m, at, n);
	at = rtnl_find(i, len, sizeof(*i), IFLA_XDP, &n);
	m->xdp = at && rtnl_number(at, n, 0, IFLA_XDP_ATTACHED) != XDP_ATTACHED_NONE;
	return 0;
}

static int keep(struct look *l, const void *payload, size_t len)
{
	ProtobufCBinaryData *slot = vec_push(&l->messages);

	if (!slot || len > BYTES_MAX)
		return -ENOMEM;
	slot->len = len;
	slot->data = scratch_copy(l->scratch, payload, len);
	return slot->data ? 0 : -ENOMEM;
}

static int take_address(void *arg, const struct nlmsghdr *h)
{
	const struct ifaddrmsg *a = NLMSG_DATA(h);
	struct look *l = arg;

	if (h->nlmsg_type != RTM_NEWADDR || (int)a->ifa_index != l->index)
		return 0;
	return keep(l, a, NLMSG_PAYLOAD(h, 0));
}

/* What the kernel adds with addresses, it adds again. */
static int take_route(void *arg, const struct nlmsghdr *h)
{
	const struct rtmsg *m = NLMSG_DATA(h);
	size_t len = NLMSG_PAYLOAD(h, 0);
	struct look *l = arg;

	if (h->nlmsg_type != RTM_NEWROUTE || m->rtm_protocol == RTPROT_KERNEL ||
	    m->rtm_protocol == RTPROT_RA || m->rtm_type == RTN_LOCAL ||
	    (m->rtm_flags & RTM_F_CLONED) ||
	    (int)rtnl_number(m, len, sizeof(*m), RTA_OIF) != l->index)
		return 0;
	return keep(l, m, len);
}

static int take_all(int fd, struct look *l, uint16_t type, rtnl_each each, size_t *ret_n,
		    ProtobufCBinaryData **ret, struct error *e)
{
	const uint8_t families[] = {AF_INET, AF_INET6};
	union {
		struct ifaddrmsg address;
		struct rtmsg route;
	} body = {};
	int r = 0;

	l->messages.n = 0;
	for (size_t i = 0; i < sizeof(families) && r >= 0; i++) {
		body.address.ifa_family = families[i]; /* both begin with it */
		r = rtnl_dump(fd, type, &body,
			      type == RTM_GETADDR ? sizeof(body.address) : sizeof(body.route), each,
			      l);
		if (r == -EOPNOTSUPP) /* a kernel without IPv6 */
			r = 0;
	}
	if (r < 0)
		return error_errno(e, r, E_SYSTEM, "cannot read what interface %s has", l->name);
	if (l->messages.n) {
		*ret = scratch_copy(l->scratch, l->messages.v, l->messages.n * sizeof(**ret));
		if (!*ret)
			return bad(e);
	}
	*ret_n = l->messages.n;
	return 0;
}

static int take_master(struct look *l, struct error *e)
{
	char name[IFNAMSIZ] = "";
	struct ifreq ifr = {.ifr_ifindex = (int)l->link->master_index};
	_cleanup_(close_fd) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (!l->link->master_index)
		return 0;
	if (fd < 0 || ioctl(fd, SIOCGIFNAME, &ifr) < 0)
		return error_errno(e, -errno, E_SYSTEM, "the master of interface %s has no name",
				   l->name);
	memcpy(name, ifr.ifr_name, sizeof(name) - 1);
	l->link->master = scratch_string(l->scratch, name);
	l->link->master_index = 0;
	return l->link->master ? 0 : bad(e);
}

static int look_at(int fd, struct look *l, struct error *e)
{
	const struct ifinfomsg all = {};
	int r = rtnl_dump(fd, RTM_GETLINK, &all, sizeof(all), take_link, l);

	if (r >= 0 && !l->index)
		r = -ENODEV;
	if (r < 0)
		return error_errno(e, r, E_SYSTEM, "cannot look at interface %s", l->name);
	if (l->link->xdp)
		return error_set(e, -EOPNOTSUPP, E_FILE_STATE,
				 "an XDP program is attached to interface %s", l->name);
	r = take_master(l, e);
	if (r >= 0)
		r = take_all(fd, l, RTM_GETADDR, take_address, &l->link->n_addresses,
			     &l->link->addresses, e);
	if (r >= 0)
		r = take_all(fd, l, RTM_GETROUTE, take_route, &l->link->n_routes, &l->link->routes,
			     e);
	return r;
}

int tun_link_save(const char *name, Reprise__TunLink **ret, struct scratch *s, struct error *e)
{
	_cleanup_(close_fd) int fd = rtnl_open();
	struct look l = {.name = name, .scratch = s};
	int r;

	l.link = scratch_message(s, Reprise__TunLink, reprise__tun_link__init);
	if (!l.link)
		return bad(e);
	if (fd < 0)
		return error_errno(e, fd, E_SYSTEM, "cannot ask about interfaces");
	r = look_at(fd, &l, e);
	vec_free(&l.messages);
	if (r >= 0)
		*ret = l.link;
	return r;
}

/* ---- restart ---- */

static int invalid(struct error *e, const char *what)
{
	return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an interface with %s", what);
}

int tun_link_validate(const Reprise__TunLink *m, struct error *e)
{
	if (m->address.len > 32 || m->flags & ~(uint32_t)KEPT_FLAGS || m->type > UINT16_MAX ||
	    m->index > INT32_MAX)
		return invalid(e, "impossible settings");
	if (m->master && strlen(m->master) >= IFNAMSIZ)
		return invalid(e, "a master whose name is too long");
	for (size_t i = 0; i < m->n_addresses; i++)
		if (m->addresses[i].len > BYTES_MAX ||
		    !rtnl_valid(m->addresses[i].data, m->addresses[i].len,
				sizeof(struct ifaddrmsg)))
			return invalid(e, "an impossible address");
	for (size_t i = 0; i < m->n_routes; i++)
		if (m->routes[i].len > BYTES_MAX ||
		    !rtnl_valid(m->routes[i].data, m->routes[i].len, sizeof(struct rtmsg)))
			return invalid(e, "an impossible route");
	return 0;
}

static int index_of(const char *name)
{
	_cleanup_(close_fd) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {};

	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	return fd < 0 || ioctl(fd, SIOCGIFINDEX, &ifr) < 0 ? -errno : ifr.ifr_ifindex;
}

static int set_link(int fd, int index, const Reprise__TunLink *m, uint32_t flags, struct error *e)
{
	const struct ifinfomsg i = {
		.ifi_index = index, .ifi_flags = flags, .ifi_change = KEPT_FLAGS};
	struct rtnl_message msg;
	int r;

	rtnl_begin(&msg, RTM_NEWLINK, 0, &i, sizeof(i));
	/* An address that the kernel has by itself (none, of a tun) cannot be set. */
	if (!(flags & IFF_UP) && m->address.len)
		rtnl_attribute(&msg, IFLA_ADDRESS, m->address.data, m->address.len);
	rtnl_attribute(&msg, IFLA_MTU, &m->mtu, sizeof(m->mtu));
	rtnl_attribute(&msg, IFLA_TXQLEN, &m->queue_length, sizeof(m->queue_length));
	if (m->master && *m->master) {
		int master = index_of(m->master);

		if (master < 0)
			return error_errno(e, master, E_RESTORE, "its master %s", m->master);
		rtnl_attribute(&msg, IFLA_MASTER, &master, sizeof(master));
	}
	r = rtnl_request(fd, &msg);
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot set up the interface") : 0;
}

/* The saved message, but for this interface, whatever its number is now. */
static int add(int fd, uint16_t type, const ProtobufCBinaryData *saved, size_t fixed, int index,
	       uint16_t skip, struct error *e)
{
	struct rtnl_message msg;
	size_t at = NLMSG_ALIGN(fixed);
	int r;

	rtnl_begin(&msg, type, NLM_F_CREATE | NLM_F_EXCL, saved->data, fixed);
	if (type == RTM_NEWADDR) {
		((struct ifaddrmsg *)NLMSG_DATA(&msg.header))->ifa_index = (uint32_t)index;
	} else {
		/* others tell of the state that it was in */
		((struct rtmsg *)NLMSG_DATA(&msg.header))->rtm_flags &= RTNH_F_ONLINK;
		rtnl_attribute(&msg, RTA_OIF, &index, sizeof(index));
	}
	while (at < saved->len) {
		const struct rtattr *a = (const struct rtattr *)(saved->data + at);

		if (a->rta_type != skip && !(type == RTM_NEWROUTE && a->rta_type == RTA_OIF))
			rtnl_attribute(&msg, a->rta_type, RTA_DATA(a), a->rta_len - RTA_LENGTH(0));
		at += RTA_ALIGN(a->rta_len);
	}
	r = rtnl_request(fd, &msg);
	if (r == -EEXIST) /* the kernel made it itself */
		r = 0;
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot add %s",
				   type == RTM_NEWADDR ? "an address" : "a route")
		     : 0;
}

static int set_owner(int fd, const Reprise__TunLink *m, struct error *e)
{
	if ((m->has_owner && ioctl(fd, TUNSETOWNER, (unsigned long)m->owner) < 0) ||
	    (m->has_group && ioctl(fd, TUNSETGROUP, (unsigned long)m->group) < 0))
		return error_errno(e, -errno, E_RESTORE, "cannot give the interface to its owner");
	if (m->type && ioctl(fd, TUNSETLINK, (unsigned long)m->type) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot set the type of the interface");
	return 0;
}

static int set_last(int fd, const Reprise__TunLink *m, struct error *e)
{
	const int off = 0;

	if (m->flags & IFF_UP && m->no_carrier && ioctl(fd, TUNSETCARRIER, &off) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot take the carrier away");
	if (m->persistent && ioctl(fd, TUNSETPERSIST, 1) < 0)
		return error_errno(e, -errno, E_RESTORE, "cannot make the interface persistent");
	return 0;
}

int tun_link_restore(int fd, const char *name, const Reprise__TunLink *m, struct error *e)
{
	_cleanup_(close_fd) int rtnl = rtnl_open();
	int index = index_of(name), r;

	if (rtnl < 0 || index < 0)
		return error_errno(e, rtnl < 0 ? rtnl : index, E_RESTORE,
				   "cannot ask about the interface");
	r = set_owner(fd, m, e);
	if (r >= 0)
		r = set_link(rtnl, index, m, m->flags & ~(uint32_t)IFF_UP, e);
	for (size_t i = 0; i < m->n_addresses && r >= 0; i++)
		r = add(rtnl, RTM_NEWADDR, &m->addresses[i], sizeof(struct ifaddrmsg), index, 0, e);
	if (r >= 0 && m->flags & IFF_UP)
		r = set_link(rtnl, index, m, m->flags, e);
	for (size_t i = 0; i < m->n_routes && r >= 0; i++)
		r = add(rtnl, RTM_NEWROUTE, &m->routes[i], sizeof(struct rtmsg), index,
			RTA_CACHEINFO, e);
	return r < 0 ? r : set_last(fd, m, e);
}
