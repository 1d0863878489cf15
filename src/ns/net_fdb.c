/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/net_fdb.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <string.h>

#include "core/cleanup.h"
#include "net/rtnl.h"

#define ENTRY_MAX   512
#define ENTRIES_MAX 100000
#define FIXED	    sizeof(struct ndmsg)
#define BIT(n)	    (UINT64_C(1) << (n))
#define KEPT                                                                             \
	(BIT(NDA_DST) | BIT(NDA_LLADDR) | BIT(NDA_VLAN) | BIT(NDA_PORT) | BIT(NDA_VNI) | \
	 BIT(NDA_IFINDEX) | BIT(NDA_SRC_VNI) | BIT(NDA_NH_ID))
/* Of the moment, or said by the header. */
#define DROPPED                                                                       \
	(BIT(NDA_CACHEINFO) | BIT(NDA_PROBES) | BIT(NDA_MASTER) | BIT(NDA_PROTOCOL) | \
	 BIT(NDA_FLAGS_EXT) | BIT(NDA_FDB_EXT_ATTRS))
#define FLAGS (NTF_STICKY | NTF_EXT_LEARNED | NTF_ROUTER)

struct look {
	size_t n;
	Reprise__NetLink *const *links;
	struct net_list *ret;
	struct scratch *s;
	struct error *e;
};

static const Reprise__NetLink *link_of(const struct look *l, int index)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->links[i]->index == index)
			return l->links[i];
	return NULL;
}

static bool is_own_address(const struct look *l, const void *address, size_t len)
{
	for (size_t i = 0; i < l->n; i++) {
		const ProtobufCBinaryData *a = &l->links[i]->attributes;
		size_t n;
		const void *own = rtnl_find(a->data, a->len, 0, IFLA_ADDRESS, &n);

		if (own && n == len && !memcmp(own, address, n))
			return true;
	}
	return false;
}

/*
 * Has somebody said so? Each interface has its own address, and those of what stands on it; groups
 * are those of sockets.
 */
static bool is_told(const struct look *l, const struct ndmsg *n, const Reprise__NetLink *link,
		    const uint8_t *address, size_t len)
{
	if (!(n->ndm_state & (NUD_NOARP | NUD_PERMANENT)) && !(n->ndm_flags & NTF_EXT_LEARNED))
		return false;
	if (n->ndm_flags & NTF_SELF && !strcmp(link->kind, "vxlan"))
		return true;
	return !(*address & 1 && n->ndm_flags & NTF_SELF) && !is_own_address(l, address, len);
}

static int refuse(const struct look *l, const Reprise__NetLink *link, const char *what)
{
	error_set(l->e, -EOPNOTSUPP, E_CONTAINER_STATE, "%s", what);
	return error_object(l->e, -EOPNOTSUPP, "network interface %s", link->name);
}

/* Of a bridge it is told with the port, or the bridge if it is behind none. */
static void settle_header(struct ndmsg *n, const Reprise__NetLink *link)
{
	const bool self = n->ndm_flags & NTF_SELF || !strcmp(link->kind, "bridge");

	n->ndm_flags = (uint8_t)((n->ndm_flags & FLAGS) | (self ? NTF_SELF : NTF_MASTER));
	n->ndm_state &= NUD_NOARP | NUD_PERMANENT;
	if (!n->ndm_state)
		n->ndm_state = NUD_REACHABLE;
	n->ndm_type = 0;
}

static int take(void *arg, const struct nlmsghdr *h)
{
	const struct ndmsg *n = NLMSG_DATA(h);
	const size_t len = NLMSG_PAYLOAD(h, 0);
	const Reprise__NetLink *link;
	struct look *l = arg;
	struct rtnl_message m;
	struct rtnl_walk w;
	const struct rtattr *a;
	size_t size;
	const uint8_t *address;

	if (h->nlmsg_type != RTM_NEWNEIGH || len < FIXED || n->ndm_family != AF_BRIDGE)
		return 0;
	link = link_of(l, n->ndm_ifindex);
	address = rtnl_find(n, len, FIXED, NDA_LLADDR, &size);
	if (!link || !address || !size || !is_told(l, n, link, address, size))
		return 0;
	rtnl_begin(&m, 0, 0, n, FIXED);
	settle_header(NLMSG_DATA(&m.header), link);
	w = (struct rtnl_walk){(const uint8_t *)n + NLMSG_ALIGN(FIXED), len - NLMSG_ALIGN(FIXED)};
	while ((a = rtnl_next(&w))) {
		const uint16_t type = a->rta_type & NLA_TYPE_MASK;

		if (type < 64 && KEPT & BIT(type))
			rtnl_attribute(&m, a->rta_type, RTA_DATA(a), RTA_PAYLOAD(a));
		else if (type >= 64 || !(DROPPED & BIT(type)))
			return refuse(l, link,
				      "an address that it forwards by other means cannot be saved");
	}
	return net_list_add(l->ret, &m, l->s);
}

int net_fdb_look(int fd, size_t n, Reprise__NetLink *const *links, struct net_list *ret,
		 struct scratch *s, struct error *e)
{
	struct look l = {.n = n, .links = links, .ret = ret, .s = s, .e = e};
	const struct ndmsg all = {.ndm_family = AF_BRIDGE};
	int r;

	for (int i = 0; i < 10; i++) {
		ret->list.n = 0;
		r = rtnl_dump(fd, RTM_GETNEIGH, &all, sizeof(all), take, &l);
		if (r != -EAGAIN)
			break;
	}
	if (r < 0 && !e->code)
		error_errno(e, r, E_SYSTEM, "cannot list addresses that are forwarded");
	return r;
}

int net_fdb_validate(const Reprise__Network *m, struct error *e)
{
	const struct look l = {.n = m->n_links, .links = m->links};

	for (size_t i = 0; i < m->n_forwarding; i++) {
		const ProtobufCBinaryData *entry = &m->forwarding[i];
		struct ndmsg n;

		if (entry->len < FIXED || entry->len > ENTRY_MAX || m->n_forwarding > ENTRIES_MAX ||
		    !rtnl_valid(entry->data, entry->len, FIXED))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "an impossible address that is forwarded");
		memcpy(&n, entry->data, FIXED);
		if (n.ndm_family != AF_BRIDGE || !link_of(&l, n.ndm_ifindex))
			return error_set(e, -EBADMSG, E_IMAGE_INVALID,
					 "an address that no interface forwards");
	}
	return 0;
}

static bool has(const ProtobufCBinaryData *entries, size_t n, const ProtobufCBinaryData *wanted)
{
	for (size_t i = 0; i < n; i++)
		if (entries[i].len == wanted->len &&
		    !memcmp(entries[i].data, wanted->data, wanted->len))
			return true;
	return false;
}

static int send_entry(int fd, uint16_t type, uint16_t flags, const ProtobufCBinaryData *entry)
{
	struct rtnl_message m;

	rtnl_begin(&m, type, flags, entry->data, entry->len);
	return rtnl_request(fd, &m);
}

/* A vxlan has its first other end by itself, which may have been removed since. */
static bool can_be_extra(const struct look *l, const ProtobufCBinaryData *entry)
{
	const struct ndmsg *n = (const struct ndmsg *)entry->data;
	const Reprise__NetLink *link = link_of(l, n->ndm_ifindex);

	return n->ndm_flags & NTF_SELF && link && !strcmp(link->kind, "vxlan");
}

static int settle(int fd, const Reprise__Network *m, const struct net_list *now, struct error *e)
{
	const struct look l = {.n = m->n_links, .links = m->links};

	vec_for_each (entry, &now->list) {
		int r = 0;

		if (!has(m->forwarding, m->n_forwarding, entry) && can_be_extra(&l, entry))
			r = send_entry(fd, RTM_DELNEIGH, 0, entry);
		if (r < 0)
			return error_errno(e, r, E_RESTORE, "cannot remove a forwarded address");
	}
	for (size_t i = 0; i < m->n_forwarding; i++) {
		const struct ndmsg *n = (const struct ndmsg *)m->forwarding[i].data;
		int r = 0;

		if (!has(now->list.v, now->list.n, &m->forwarding[i]))
			r = send_entry(fd, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_APPEND,
				       &m->forwarding[i]);
		if (r < 0 && r != -EEXIST)
			return error_object(
				e, error_errno(e, r, E_RESTORE, "cannot add a forwarded address"),
				"network interface %s", link_of(&l, n->ndm_ifindex)->name);
	}
	return 0;
}

int net_fdb_restart(int fd, const Reprise__Network *m, struct error *e)
{
	_cleanup_(scratch_free) struct scratch s = {};
	struct net_list now = {};
	int r = net_fdb_look(fd, m->n_links, m->links, &now, &s, e);

	if (r >= 0)
		r = settle(fd, m, &now, e);
	vec_free(&now.list);
	return r;
}
