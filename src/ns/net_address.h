/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NET_ADDRESS_H
#define REPRISE_NS_NET_ADDRESS_H

#include "model/restart.h"
#include "ns/net_links.h"

/*
 * Which address a container has where its interface leads to the host. A copy beside the original
 * cannot have the same: it gets another, and with it what refers to it, routes and the addresses of
 * sockets.
 */
int net_address_check(const char *how, struct error *e) must_check;

/* Of a new container: fills in addresses on both sides. */
int net_address_assign(const struct net_host *host, Reprise__Network *m, const char *how,
		       struct scratch *s, struct error *e) must_check;
/* The default route by way of the host. */
int net_address_gateway(int fd, const Reprise__Network *m, struct error *e) must_check;

/*
 * Of a restart: changes addresses in a copy of the message if it is told to (`how`), or has to; r
 * remembers which.
 */
int net_address_choose(const struct net_host *host, struct restart *r, Reprise__Network *m,
		       const char *how, struct scratch *s, struct error *e) must_check;
/* When the addresses are there: routes that the kernel makes with them are others now. */
int net_address_routes(int fd, const struct restart *r, Reprise__Network *m, struct scratch *s,
		       struct error *e) must_check;

#endif
