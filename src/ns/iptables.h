/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_IPTABLES_H
#define REPRISE_NS_IPTABLES_H

#include "core/error.h"
#include "core/scratch.h"
#include "ns.pb-c.h"

/*
 * Tables of iptables, ip6tables and arptables (not those that iptables-nft makes, which are of
 * nftables). A table is there once somebody has looked at it.
 */

/* Those of the namespace that this process is in, into m. proc_fd: any /proc; -1 for /proc. */
int iptables_checkpoint(int proc_fd, Reprise__Network *m, struct scratch *s,
			struct error *e) must_check;
int iptables_validate(const Reprise__Network *m, struct error *e) must_check;
int iptables_restart(const Reprise__Network *m, struct error *e) must_check;

#endif
