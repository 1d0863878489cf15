/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NET_REFUSE_H
#define REPRISE_NS_NET_REFUSE_H

#include "ns/net_links.h"

/* What a network namespace holds beside what is saved. rules: it has some of a firewall. */
int net_refuse(int proc_fd, const struct net_links *links, bool rules, struct error *e) must_check;

#endif
