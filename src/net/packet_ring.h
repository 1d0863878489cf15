/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_PACKET_RING_H
#define REPRISE_NET_PACKET_RING_H

#include "fs/context.h"
#include "net.pb-c.h"
#include "net/packet_diag.h"

/* Rings of packet sockets, and where they are mapped. */

int packet_ring_save(struct checkpoint *c, int fd, const struct packet_info *p,
		     Reprise__PacketSocket *m, struct scratch *s, struct error *e) must_check;
bool packet_ring_valid(const Reprise__PacketSocket *m);
/* Of a socket that has its options, and neither address nor filter: after that it is bound to the
 * loopback device, unless it has received nothing. */
int packet_ring_restore(int fd, const Reprise__PacketSocket *m, struct error *e) must_check;

/* Finds the sockets of mappings, when all have been seen. */
int packet_map_save(struct checkpoint *c, struct error *e) must_check;
/* Maps them in all processes. */
int packet_map_restore(struct restart *r, struct error *e) must_check;

#endif
