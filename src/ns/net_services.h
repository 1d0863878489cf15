/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NET_SERVICES_H
#define REPRISE_NS_NET_SERVICES_H

#include "core/error.h"

/*
 * What the kernel's own services have in the network namespace of this process, of which neither
 * rtnetlink nor netfilter tell: IPVS, and those that are spoken to by generic netlink. Refused.
 */
int net_services_refuse(int proc_fd, struct error *e) must_check;

#endif
