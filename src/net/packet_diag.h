/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_PACKET_DIAG_H
#define REPRISE_NET_PACKET_DIAG_H

#include <linux/packet_diag.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/vec.h"

/* A packet socket of this network namespace, as NETLINK_SOCK_DIAG shows it. */
struct packet_info {
	uint32_t ino;
	struct packet_diag_info info;
	bool has_ring[2]; /* for receiving, for sending */
	struct packet_diag_ring rings[2];
	bool in_fanout;
	uint32_t fanout; /* id, type << 16 */
	struct packet_diag_mclist *memberships;
	size_t n_memberships;
};

struct packet_table {
	VEC(struct packet_info) list;
};

int packet_table_read(struct packet_table *ret, struct error *e) must_check;
const struct packet_info *packet_table_find(const struct packet_table *t, uint64_t ino);
size_t packet_table_fanout(const struct packet_table *t, uint16_t id); /* members of a group */
void packet_table_free(struct packet_table *t);

#endif
