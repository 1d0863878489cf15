/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/net_kinds.h"

#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <string.h>

#include "core/cleanup.h"
#include "net/rtnl.h"

#define DATA_MAX      2048
#define BIT(n)	      (UINT64_C(1) << (n))
#define FROM_TO(a, b) ((BIT((b) + 1) - 1) & ~(BIT(a) - 1))

/* What a bridge measures, counts down, or derives from the address and its neighbours, is not set.
 */
#define BRIDGE_DATA                                                                         \
	(FROM_TO(IFLA_BR_FORWARD_DELAY, IFLA_BR_GROUP_FWD_MASK) | BIT(IFLA_BR_GROUP_ADDR) | \
	 FROM_TO(IFLA_BR_MCAST_ROUTER, IFLA_BR_MCAST_QUERIER) |                             \
	 FROM_TO(IFLA_BR_MCAST_HASH_MAX, IFLA_BR_NF_CALL_ARPTABLES) |                       \
	 BIT(IFLA_BR_VLAN_DEFAULT_PVID) | BIT(IFLA_BR_VLAN_STATS_ENABLED) |                 \
	 FROM_TO(IFLA_BR_MCAST_STATS_ENABLED, IFLA_BR_MCAST_MLD_VERSION) |                  \
	 BIT(IFLA_BR_VLAN_STATS_PER_PORT) | BIT(IFLA_BR_MULTI_BOOLOPT) | BIT(BR_FDB_MAX_LEARNED))
/* Later headers: the most addresses that a bridge learns. */
#define BR_FDB_MAX_LEARNED     49
#define BRPORT_MAB	       40
#define BRPORT_MAX_GROUPS      42
#define BRPORT_NEIGH_SUPPRESS  43 /* for each VLAN */
#define BRPORT_BACKUP_NEXT_HOP 44
#define MACVLAN_BC_CUTOFF      9
#define VXLAN_LAST	       34
#define PORT_DATA                                                                               \
	(FROM_TO(IFLA_BRPORT_PRIORITY, IFLA_BRPORT_PROXYARP) | BIT(IFLA_BRPORT_PROXYARP_WIFI) | \
	 BIT(IFLA_BRPORT_MULTICAST_ROUTER) |                                                    \
	 FROM_TO(IFLA_BRPORT_MCAST_FLOOD, IFLA_BRPORT_ISOLATED) |                               \
	 BIT(IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT) | BIT(IFLA_BRPORT_LOCKED) | BIT(BRPORT_MAB) |   \
	 BIT(BRPORT_MAX_GROUPS) | BIT(BRPORT_NEIGH_SUPPRESS))

static const struct net_kind kinds[] = {
	{"", false, 0, false}, /* the loopback */
	{"veth", false, 0, false},
	{"dummy", false, 0, false},
	{"ifb", false, 0, false},
	{"bridge", false, BRIDGE_DATA, true},
	{"macvlan", true,
	 BIT(IFLA_MACVLAN_MODE) | BIT(IFLA_MACVLAN_FLAGS) | BIT(IFLA_MACVLAN_BC_QUEUE_LEN) |
		 BIT(MACVLAN_BC_CUTOFF),
	 false},
	{"vxlan", false, FROM_TO(IFLA_VXLAN_ID, VXLAN_LAST), false},
	{"vlan", true,
	 BIT(IFLA_VLAN_ID) | BIT(IFLA_VLAN_FLAGS) | BIT(IFLA_VLAN_EGRESS_QOS) |
		 BIT(IFLA_VLAN_INGRESS_QOS) | BIT(IFLA_VLAN_PROTOCOL),
	 false},
};

const struct net_kind *net_kind_of(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

static bool is_set(const void *data, size_t len, uint16_t type)
{
	size_t n;
	const uint8_t *at = rtnl_find(data, len, 0, type, &n);

	return at && n && *at;
}

/* What a kind can do and we cannot make again. */
static int refuse_parts(const Reprise__NetLink *m, const void *data, size_t len, struct error *e)
{
	size_t n;
	const uint32_t *mode = rtnl_find(data, len, 0, IFLA_MACVLAN_MODE, &n);

	if (!strcmp(m->kind, "bridge") && is_set(data, len, IFLA_BR_VLAN_FILTERING))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "a bridge that filters VLANs cannot be saved");
	if (!strcmp(m->kind, "vxlan") && is_set(data, len, IFLA_VXLAN_VNIFILTER))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "a vxlan with a list of networks (vnifilter) cannot be saved");
	if (!strcmp(m->kind, "macvlan") && mode && n == sizeof(*mode) &&
	    *mode == MACVLAN_MODE_SOURCE)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "a macvlan with a list of sources cannot be saved");
	return 0;
}

/* This one is told as a number and taken as a flag (vxlan_fill_info(), vxlan_policy). */
static bool is_number_of_flag(const char *kind, uint16_t type)
{
	return !strcmp(kind, "vxlan") && type == IFLA_VXLAN_TTL_INHERIT;
}

/* What is off is not said: the kernel takes its bits for used even so (vxlan_nl2conf()). */
static bool is_off(const char *kind, const void *data, size_t len, uint16_t type)
{
	return !strcmp(kind, "vxlan") && type == IFLA_VXLAN_REMCSUM_RX && !is_set(data, len, type);
}

static int copy_kept(const char *kind, const void *data, size_t len, uint64_t kept,
		     ProtobufCBinaryData *ret, struct scratch *s, struct error *e)
{
	const uint8_t *bytes = data;
	size_t at = 0;

	if (!rtnl_valid(data, len, 0) || len > DATA_MAX)
		return error_set(e, -EPROTO, E_SYSTEM, "the kernel tells nothing sensible of it");
	ret->len = 0;
	ret->data = scratch_alloc(s, len ?: 1);
	if (!ret->data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an interface");
	while (at < len) {
		const struct rtattr *a = (const struct rtattr *)(bytes + at);
		uint16_t type = a->rta_type & NLA_TYPE_MASK;
		size_t size = RTA_ALIGN(a->rta_len);

		if (is_number_of_flag(kind, type) && RTA_PAYLOAD(a)) {
			const struct rtattr flag = {.rta_type = type, .rta_len = sizeof(flag)};

			if (is_set(data, len, type)) {
				memcpy(ret->data + ret->len, &flag, sizeof(flag));
				ret->len += sizeof(flag);
			}
		} else if (type < 64 && kept & BIT(type) && !is_off(kind, data, len, type)) {
			memcpy(ret->data + ret->len, a, a->rta_len);
			ret->len += size;
		}
		at += size;
	}
	return 0;
}

int net_kind_take(Reprise__NetLink *m, const void *info, size_t len, struct scratch *s,
		  struct error *e)
{
	const struct net_kind *kind;
	const void *data, *port;
	const char *name, *of;
	size_t n, data_len, port_len;
	int r = 0;

	name = rtnl_find(info, len, 0, IFLA_INFO_KIND, &n);
	m->kind = scratch_string(s, name && n && !name[n - 1] ? name : "");
	if (!m->kind)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an interface");
	kind = net_kind_of(m->kind);
	if (!kind || !*m->kind)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "an interface of kind %s cannot be saved",
				 *m->kind ? m->kind : "unknown");
	data = rtnl_find(info, len, 0, IFLA_INFO_DATA, &data_len);
	if (data)
		r = refuse_parts(m, data, data_len, e);
	if (r >= 0 && data && kind->kept)
		r = copy_kept(m->kind, data, data_len, kind->kept, &m->data, s, e);
	of = rtnl_find(info, len, 0, IFLA_INFO_SLAVE_KIND, &n);
	port = rtnl_find(info, len, 0, IFLA_INFO_SLAVE_DATA, &port_len);
	if (r < 0 || !of)
		return r;
	if (strcmp(of, "bridge"))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "an interface that belongs to a %s cannot be saved", of);
	if (port && (rtnl_number(port, port_len, 0, IFLA_BRPORT_BACKUP_PORT) ||
		     rtnl_number(port, port_len, 0, BRPORT_BACKUP_NEXT_HOP)))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_STATE,
				 "a port of a bridge with a backup cannot be saved");
	m->port_number = port ? rtnl_number(port, port_len, 0, IFLA_BRPORT_NO) : 0;
	return port ? copy_kept("bridge", port, port_len, PORT_DATA, &m->port, s, e) : 0;
}

static bool only(const ProtobufCBinaryData *data, uint64_t kept)
{
	size_t at = 0;

	if (data->len > DATA_MAX || !rtnl_valid(data->data, data->len, 0))
		return false;
	while (at < data->len) {
		const struct rtattr *a = (const struct rtattr *)(data->data + at);
		uint16_t type = a->rta_type & NLA_TYPE_MASK;

		if (type >= 64 || !(kept & BIT(type)))
			return false;
		at += RTA_ALIGN(a->rta_len);
	}
	return true;
}

int net_kind_validate(const Reprise__NetLink *m, struct error *e)
{
	const struct net_kind *kind = net_kind_of(m->kind);

	if (!kind || !only(&m->data, kind->kept) || !only(&m->port, PORT_DATA))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID, "an impossible interface");
	return 0;
}

/* ---- restart ---- */

struct search {
	const Reprise__NetLink *m;
	struct rtnl_message data, port;
	bool set_data, set_port;
};

static bool put_differing(struct rtnl_message *to, const ProtobufCBinaryData *wanted,
			  const void *is, size_t len)
{
	bool any = false;
	size_t at = 0, n;

	while (at < wanted->len) {
		const struct rtattr *a = (const struct rtattr *)(wanted->data + at);
		const void *now =
			is ? rtnl_find(is, len, 0, a->rta_type & NLA_TYPE_MASK, &n) : NULL;

		if (!now || n != RTA_PAYLOAD(a) || memcmp(now, RTA_DATA(a), n) != 0) {
			rtnl_attribute(to, a->rta_type, RTA_DATA(a), RTA_PAYLOAD(a));
			any = true;
		}
		at += RTA_ALIGN(a->rta_len);
	}
	return any;
}

static int compare(void *arg, const struct nlmsghdr *h)
{
	const struct ifinfomsg *i = NLMSG_DATA(h);
	struct search *q = arg;
	size_t len = 0, n = 0;
	const void *info, *data;

	if (h->nlmsg_type != RTM_NEWLINK || i->ifi_index != q->m->index)
		return 0;
	info = rtnl_find(i, NLMSG_PAYLOAD(h, 0), sizeof(*i), IFLA_LINKINFO, &len);
	data = info ? rtnl_find(info, len, 0, IFLA_INFO_DATA, &n) : NULL;
	q->set_data =
		net_kind_of(q->m->kind)->later && put_differing(&q->data, &q->m->data, data, n);
	data = info ? rtnl_find(info, len, 0, IFLA_INFO_SLAVE_DATA, &n) : NULL;
	q->set_port = put_differing(&q->port, &q->m->port, data, n);
	return 0;
}

/* IFLA_LINKINFO with a kind and its data, for an interface that there is. */
static int send_info(int fd, int index, uint16_t kind_type, const char *kind, uint16_t data_type,
		     const struct rtnl_message *data)
{
	const struct ifinfomsg i = {.ifi_index = index};
	struct rtnl_message inner, m;
	const char none = 0;

	rtnl_begin(&inner, 0, 0, &none, 0);
	rtnl_attribute(&inner, kind_type, kind, strlen(kind) + 1);
	rtnl_attribute(&inner, data_type, NLMSG_DATA(&data->header),
		       data->header.nlmsg_len - NLMSG_HDRLEN);
	rtnl_begin(&m, RTM_NEWLINK, 0, &i, sizeof(i));
	rtnl_attribute(&m, IFLA_LINKINFO, NLMSG_DATA(&inner.header),
		       inner.header.nlmsg_len - NLMSG_HDRLEN);
	return rtnl_request(fd, &m);
}

int net_kind_settle(int fd, const Reprise__NetLink *m, struct error *e)
{
	const struct ifinfomsg all = {};
	struct search q = {.m = m};
	int r;

	if (!m->data.len && !m->port.len)
		return 0;
	rtnl_begin(&q.data, 0, 0, &all, 0);
	rtnl_begin(&q.port, 0, 0, &all, 0);
	r = rtnl_dump(fd, RTM_GETLINK, &all, sizeof(all), compare, &q);
	if (r >= 0 && q.set_data)
		r = send_info(fd, m->index, IFLA_INFO_KIND, m->kind, IFLA_INFO_DATA, &q.data);
	if (r >= 0 && q.set_port)
		r = send_info(fd, m->index, IFLA_INFO_SLAVE_KIND, "bridge", IFLA_INFO_SLAVE_DATA,
			      &q.port);
	return r < 0 ? error_errno(e, r, E_RESTORE, "cannot set up a %s", m->kind) : 0;
}
