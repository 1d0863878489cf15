/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/net_outside.h"

#include <errno.h>
#include <string.h>

#include "net/rtnl.h"

struct look {
	int index, master;
	Reprise__NetOutside *m;
	struct scratch *s;
	char master_name[IFNAMSIZ];
};

static int take(void *arg, const struct nlmsghdr *h)
{
	const struct ifinfomsg *i = NLMSG_DATA(h);
	size_t len = NLMSG_PAYLOAD(h, 0), n;
	struct look *l = arg;
	const char *name = rtnl_find(i, len, sizeof(*i), IFLA_IFNAME, &n);
	const void *master;

	if (h->nlmsg_type != RTM_NEWLINK || !name || !n || name[n - 1])
		return 0;
	if (i->ifi_index == l->master)
		strncpy(l->master_name, name, IFNAMSIZ - 1);
	if (i->ifi_index != l->index)
		return 0;
	l->m->name = scratch_string(l->s, name);
	l->m->flags = i->ifi_flags & NET_LINK_FLAGS;
	master = rtnl_find(i, len, sizeof(*i), IFLA_MASTER, &n);
	if (master && n == sizeof(l->master))
		memcpy(&l->master, master, n);
	return l->m->name ? net_attributes_take(i, len, &l->m->attributes, l->s) : -ENOMEM;
}

int net_outside_look(const struct net_host *host, int index, Reprise__NetOutside **ret,
		     struct scratch *s, struct error *e)
{
	const struct ifinfomsg all = {};
	struct look l = {.index = index, .s = s};
	struct net_list addresses = {};
	int r = 0;

	l.m = scratch_message(s, Reprise__NetOutside, reprise__net_outside__init);
	if (!l.m)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an interface");
	/* A second time for the master, which may come before. */
	for (int i = 0; i < 2 && r >= 0; i++)
		r = rtnl_dump(host->rtnl, RTM_GETLINK, &all, sizeof(all), take, &l);
	if (r < 0 || !l.m->name)
		return error_errno(e, r ?: -ENODEV, E_SYSTEM, "cannot look at its other end");
	if (l.master)
		l.m->master = scratch_string(s, l.master_name);
	r = net_entries_look(host->rtnl, NET_ADDRESSES, index, NULL, &addresses, s, e);
	if (r >= 0 && addresses.list.n) {
		l.m->n_addresses = addresses.list.n;
		l.m->addresses = scratch_copy(s, addresses.list.v,
					      addresses.list.n * sizeof(*addresses.list.v));
		if (!l.m->addresses)
			r = error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an interface");
	}
	vec_free(&addresses.list);
	if (r >= 0)
		*ret = l.m;
	return r;
}

int net_outside_validate(const Reprise__NetOutside *m, struct error *e)
{
	if (!*m->name || strlen(m->name) >= IFNAMSIZ || strlen(m->master) >= IFNAMSIZ ||
	    strpbrk(m->name, "/: \n") || m->flags & ~(uint32_t)NET_LINK_FLAGS ||
	    !net_attributes_valid(&m->attributes))
		return error_set(e, -EBADMSG, E_IMAGE_INVALID,
				 "a network interface with an impossible other end");
	return net_entries_validate(NET_ADDRESSES, m->n_addresses, m->addresses, e);
}

static int set_master(const struct net_host *host, int index, const char *name, struct error *e)
{
	const struct ifinfomsg i = {.ifi_index = index};
	int master = net_index_of(host->rtnl, name), r = master;
	struct rtnl_message m;

	if (r >= 0) {
		rtnl_begin(&m, RTM_SETLINK, 0, &i, sizeof(i));
		rtnl_attribute(&m, IFLA_MASTER, &master, sizeof(master));
		r = rtnl_request(host->rtnl, &m);
	}
	return r < 0 ? error_errno(e, r, E_RESTORE, "it belonged to interface %s of the host", name)
		     : 0;
}

static int set_up(const struct net_host *host, int index, const Reprise__NetOutside *m,
		  struct error *e)
{
	int r = net_attributes_set(host->rtnl, index, &m->attributes, e);

	if (r >= 0 && *m->master)
		r = set_master(host, index, m->master, e);
	if (r < 0)
		return r;
	r = net_flags_set(host->rtnl, index, m->flags);
	if (r < 0)
		return error_errno(e, r, E_RESTORE, "cannot bring it up");
	return net_addresses_add(host->rtnl, index, m->n_addresses, m->addresses, e);
}

int net_outside_restart(const struct net_host *host, int index, const Reprise__NetOutside *m,
			struct error *e)
{
	int r = index < 0 ? error_errno(e, index, E_RESTORE, "it has gone")
			  : set_up(host, index, m, e);

	if (r < 0 && !*m->name) /* the kernel was to choose one */
		return error_object(e, r, "the host's end of a pair of network interfaces");
	return r < 0 ? error_object(e, r, "network interface %s of the host", m->name) : 0;
}
