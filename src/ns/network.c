/* SPDX-License-Identifier: Apache-2.0 */
#include "ns/network.h"

#include <errno.h>
#include <string.h>

#include "core/cleanup.h"
#include "net/rtnl.h"
#include "ns/conntrack.h"
#include "ns/iptables.h"
#include "ns/net_address.h"
#include "ns/net_fdb.h"
#include "ns/net_pairs.h"
#include "ns/net_refuse.h"
#include "ns/nftables.h"
#include "ns/queueing.h"

void network_free(struct network *n)
{
	net_host_close(&n->host);
	vec_free(&n->fresh.list);
	vec_free(&n->others.list);
	net_files_free(&n->files);
	scratch_free(&n->s);
}

int network_begin(struct network *n, int proc_fd, struct error *e)
{
	return net_host_open(&n->host, proc_fd, e);
}

/* ---- checkpoint ---- */

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a network namespace");
}

static int save_entries(int fd, enum net_entries kind, const struct net_links *links, size_t *n,
			ProtobufCBinaryData **ret, struct scratch *s, struct error *e)
{
	struct net_list found = {};
	int r = net_entries_look(fd, kind, 0, &links->others, &found, s, e);

	if (r >= 0 && found.list.n) {
		*ret = scratch_copy(s, found.list.v, found.list.n * sizeof(**ret));
		*n = *ret ? found.list.n : 0;
		r = *ret ? 0 : no_memory(e);
	}
	vec_free(&found.list);
	return r;
}

static int save_forwarding(int fd, Reprise__Network *m, struct scratch *s, struct error *e)
{
	struct net_list found = {};
	int r = net_fdb_look(fd, m->n_links, m->links, &found, s, e);

	if (r >= 0 && found.list.n) {
		m->forwarding = scratch_copy(s, found.list.v, found.list.n * sizeof(*found.list.v));
		m->n_forwarding = m->forwarding ? found.list.n : 0;
		r = m->forwarding ? 0 : no_memory(e);
	}
	vec_free(&found.list);
	return r;
}

static int save_links(int fd, const struct net_host *host, struct net_links *links,
		      Reprise__Network *m, struct scratch *s, struct error *e)
{
	int r = net_links_look(fd, host, links, s, e);

	if (r < 0 || !links->list.n)
		return r;
	m->links = scratch_copy(s, links->list.v, links->list.n * sizeof(*links->list.v));
	m->n_links = m->links ? links->list.n : 0;
	return m->links ? 0 : no_memory(e);
}

static int save_settings(struct network *n, int proc_fd, const struct net_others *others,
			 Reprise__Network *m, struct scratch *s, struct error *e)
{
	struct net_settings now = {}, kept = {};
	int r = 0;

	if (!n->fresh.list.n)
		r = net_settings_look_fresh(proc_fd, &n->fresh, &n->s, e);
	if (r >= 0)
		r = net_settings_look(proc_fd, &n->files, &now, s, e);
	if (r >= 0)
		r = net_settings_differing(&now, &n->fresh, others, &kept, e);
	if (r >= 0 && kept.list.n) {
		m->settings = scratch_copy(s, kept.list.v, kept.list.n * sizeof(*kept.list.v));
		m->n_settings = m->settings ? kept.list.n : 0;
		r = m->settings ? 0 : no_memory(e);
	}
	vec_free(&now.list);
	vec_free(&kept.list);
	return r;
}

static int save_nftables(const struct net_links *links, Reprise__Network *m, struct scratch *s,
			 struct error *e)
{
	struct nftables found = {};
	int r = nftables_look(&links->others, &found, s, e);

	if (r >= 0 && found.list.n) {
		m->nftables = scratch_copy(s, found.list.v, found.list.n * sizeof(*found.list.v));
		m->n_nftables = m->nftables ? found.list.n : 0;
		r = m->nftables ? 0 : no_memory(e);
	}
	vec_free(&found.list);
	return r;
}

static int save_all(struct network *n, int fd, int proc_fd, struct net_links *links,
		    Reprise__Network *m, struct scratch *s, struct error *e)
{
	int r = save_links(fd, &n->host, links, m, s, e);

	if (r >= 0)
		r = save_settings(n, proc_fd, &links->others, m, s, e);
	if (r >= 0)
		r = save_entries(fd, NET_ADDRESSES, links, &m->n_addresses, &m->addresses, s, e);
	if (r >= 0)
		r = save_entries(fd, NET_RULES, links, &m->n_rules, &m->rules, s, e);
	if (r >= 0)
		r = save_entries(fd, NET_NEXT_HOPS, links, &m->n_next_hops, &m->next_hops, s, e);
	if (r >= 0)
		r = save_entries(fd, NET_ROUTES, links, &m->n_routes, &m->routes, s, e);
	if (r >= 0)
		r = save_entries(fd, NET_NEIGHBOURS, links, &m->n_neighbours, &m->neighbours, s, e);
	if (r >= 0)
		r = save_entries(fd, NET_PROXIES, links, &m->n_proxies, &m->proxies, s, e);
	if (r >= 0)
		r = save_entries(fd, NET_LABELS, links, &m->n_labels, &m->labels, s, e);
	m->has_labels = true;
	if (r >= 0)
		r = save_forwarding(fd, m, s, e);
	if (r >= 0)
		r = queueing_checkpoint(fd, links, m, s, e);
	if (r >= 0)
		r = save_nftables(links, m, s, e);
	if (r >= 0)
		r = iptables_checkpoint(proc_fd, m, s, e);
	if (r >= 0)
		r = conntrack_checkpoint(proc_fd, m, s, e);
	return r < 0 ? r : net_refuse(proc_fd, links, m->n_nftables || m->n_iptables, e);
}

int network_checkpoint(struct network *n, int proc_fd, Reprise__Container *msg, struct scratch *s,
		       struct error *e)
{
	_cleanup_(close_fd) int fd = rtnl_open();
	struct net_links links = {};
	int r;

	msg->network = scratch_message(s, Reprise__Network, reprise__network__init);
	if (!msg->network)
		return no_memory(e);
	if (fd < 0)
		return error_errno(e, fd, E_SYSTEM, "cannot ask about interfaces");
	r = save_all(n, fd, proc_fd, &links, msg->network, s, e);
	vec_free(&links.list);
	vec_free(&n->others.list);
	n->others = links.others;
	return r;
}

/* ---- restart ---- */

int network_validate(const Reprise__Container *msg, struct error *e)
{
	const Reprise__Network *m = msg->network;
	int r;

	if (!m)
		return 0;
	r = net_links_validate(m, e);
	if (r >= 0)
		r = net_entries_validate(NET_ADDRESSES, m->n_addresses, m->addresses, e);
	if (r >= 0)
		r = net_entries_validate(NET_RULES, m->n_rules, m->rules, e);
	if (r >= 0)
		r = net_entries_validate(NET_NEXT_HOPS, m->n_next_hops, m->next_hops, e);
	if (r >= 0)
		r = net_entries_validate(NET_ROUTES, m->n_routes, m->routes, e);
	if (r >= 0)
		r = net_entries_validate(NET_NEIGHBOURS, m->n_neighbours, m->neighbours, e);
	if (r >= 0)
		r = net_entries_validate(NET_PROXIES, m->n_proxies, m->proxies, e);
	if (r >= 0)
		r = net_entries_validate(NET_LABELS, m->n_labels, m->labels, e);
	if (r >= 0)
		r = net_fdb_validate(m, e);
	if (r >= 0)
		r = queueing_validate(m, e);
	if (r >= 0)
		r = nftables_validate(m, e);
	if (r >= 0)
		r = iptables_validate(m, e);
	if (r >= 0)
		r = conntrack_validate(m, e);
	return r < 0 ? r : net_settings_validate(m->n_settings, m->settings, e);
}

/* Images of old hold nothing but whether the loopback is up. */
static int loopback_up(int fd, struct error *e)
{
	int r = net_flags_set(fd, 1, IFF_UP);

	return r < 0 ? error_errno(e, r, E_NAMESPACE, "cannot bring the loopback interface up") : 0;
}

static int restore_entries(int fd, const Reprise__Network *m, struct error *e)
{
	int r = net_entries_restore(fd, NET_RULES, m->n_rules, m->rules, NULL, e);

	if (r >= 0)
		r = net_entries_restore(fd, NET_NEXT_HOPS, m->n_next_hops, m->next_hops, NULL, e);
	if (r >= 0)
		r = net_entries_restore(fd, NET_ROUTES, m->n_routes, m->routes, NULL, e);
	if (r >= 0)
		r = net_entries_restore(fd, NET_NEIGHBOURS, m->n_neighbours, m->neighbours, NULL,
					e);
	if (r >= 0)
		r = net_entries_restore(fd, NET_PROXIES, m->n_proxies, m->proxies, NULL, e);
	if (r >= 0 && m->has_labels)
		r = net_entries_restore(fd, NET_LABELS, m->n_labels, m->labels, NULL, e);
	if (r >= 0)
		r = net_fdb_restart(fd, m, e);
	return r;
}

static int restore_all(struct network *n, int fd, struct restart *r, const Reprise__Container *msg,
		       const char *wanted, struct error *e)
{
	Reprise__Network m = *msg->network;
	int res = net_address_choose(&n->host, r, &m, wanted, &n->s, e);

	if (res >= 0)
		res = net_links_make(fd, &n->host, &m, e);
	/* Before they are up: whether IPv6 is on, what is accepted from routers. */
	if (res >= 0)
		res = net_settings_restart(r->proc_fd, m.n_settings, m.settings, e);
	/* Nothing comes through before the rules are there. */
	if (res >= 0)
		res = nftables_restart(&m, e);
	if (res >= 0)
		res = iptables_restart(&m, e);
	if (res >= 0)
		res = conntrack_restart(r, &m, e);
	if (res >= 0)
		res = queueing_restart(fd, &m, e);
	if (res >= 0)
		res = net_links_up(fd, &n->host, &m, e);
	if (res >= 0)
		res = net_entries_restore(fd, NET_ADDRESSES, m.n_addresses, m.addresses, NULL, e);
	if (res >= 0)
		res = net_address_routes(fd, r, &m, &n->s, e);
	if (res >= 0)
		res = restore_entries(fd, &m, e);
	return res < 0 ? res : net_links_finish(fd, &m, e);
}

int network_restart(struct network *n, struct restart *r, uint64_t id,
		    const Reprise__Container *msg, const char *wanted, struct error *e)
{
	const struct net_pairs pairs = {.r = r, .id = id};
	_cleanup_(close_fd) int fd = rtnl_open();
	int res;

	if (fd < 0)
		return error_errno(e, fd, E_NAMESPACE, "cannot ask about interfaces");
	if (!msg->network)
		return msg->loopback_up ? loopback_up(fd, e) : 0;
	res = net_pairs_begin(r, e);
	if (res < 0)
		return res;
	n->host.pairs = &pairs;
	net_host_lock(&n->host);
	res = restore_all(n, fd, r, msg, wanted, e);
	net_host_unlock(&n->host);
	n->host.pairs = NULL;
	return res;
}

/* ---- a new one ---- */

static int make(struct network *n, const char *how, struct error *e)
{
	_cleanup_(close_fd) int fd = rtnl_open();
	Reprise__NetLink lo, veth, *links[] = {&lo, &veth};
	Reprise__NetOutside outside;
	Reprise__Network m;
	int r;

	if (fd < 0)
		return error_errno(e, fd, E_NAMESPACE, "cannot ask about interfaces");
	r = loopback_up(fd, e);
	if (r < 0 || !how)
		return r;
	reprise__network__init(&m);
	reprise__net_link__init(&lo);
	reprise__net_link__init(&veth);
	reprise__net_outside__init(&outside);
	lo.index = 1;
	lo.name = (char *)"lo";
	lo.flags = IFF_UP;
	veth.index = 2;
	veth.name = (char *)"eth0";
	veth.kind = (char *)"veth";
	veth.flags = outside.flags = IFF_UP | IFF_MULTICAST;
	veth.running = true;
	veth.outside = &outside;
	m.links = links;
	m.n_links = 2;
	r = net_address_assign(&n->host, &m, how, &n->s, e);
	if (r >= 0)
		r = net_links_make(fd, &n->host, &m, e);
	/* Its link-local address it makes itself. */
	if (r >= 0)
		r = net_links_finish(fd, &m, e);
	if (r >= 0)
		r = net_links_up(fd, &n->host, &m, e);
	if (r >= 0)
		r = net_addresses_add(fd, veth.index, m.n_addresses, m.addresses, e);
	return r < 0 ? r : net_address_gateway(fd, &m, e);
}

int network_make(struct network *n, const char *how, struct error *e)
{
	int r;

	if (how)
		net_host_lock(&n->host);
	r = make(n, how, e);
	if (how)
		net_host_unlock(&n->host);
	return r;
}
