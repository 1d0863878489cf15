/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_MULTICAST_H
#define REPRISE_NET_MULTICAST_H

#include "fs/context.h"
#include "net.pb-c.h"

/* Memberships of internet sockets in multicast groups, IPv4 and IPv6. */
struct multicast_groups; /* of this network namespace: files_checkpoint.multicast */

int multicast_save(struct checkpoint *c, int fd, Reprise__InetSocket *m, struct scratch *s,
		   struct error *e) must_check;
void multicast_checkpoint_end(struct checkpoint *c);
int multicast_validate(const Reprise__InetSocket *m, struct error *e) must_check;
/* Before bind(): nothing can arrive until the sources that are not wanted have been blocked. */
int multicast_restore(int fd, const Reprise__InetSocket *m, struct error *e) must_check;

#endif
