/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NET_FDB_H
#define REPRISE_NS_NET_FDB_H

#include "ns/net_entries.h"
#include "ns/net_links.h"

/*
 * Addresses that somebody has told an interface or a bridge, with what lies behind them
 * ("bridge fdb"): of a vxlan the other ends of the tunnel, of a bridge the port. What they learnt
 * they learn again.
 */
int net_fdb_look(int fd, size_t n, Reprise__NetLink *const *links, struct net_list *ret,
		 struct scratch *s, struct error *e) must_check;
int net_fdb_validate(const Reprise__Network *m, struct error *e) must_check;
/* When all interfaces and next hops are there. */
int net_fdb_restart(int fd, const Reprise__Network *m, struct error *e) must_check;

#endif
