/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NET_OUTSIDE_H
#define REPRISE_NS_NET_OUTSIDE_H

#include "ns/net_links.h"

/* An interface of the host that an interface of a container leads to. */
int net_outside_look(const struct net_host *host, int index, Reprise__NetOutside **ret,
		     struct scratch *s, struct error *e) must_check;
int net_outside_validate(const Reprise__NetOutside *m, struct error *e) must_check;
/* Of a veth that has just been made: it is set up as it was. */
int net_outside_restart(const struct net_host *host, int index, const Reprise__NetOutside *m,
			struct error *e) must_check;

#endif
