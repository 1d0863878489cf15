/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_SOCK_DIAG_H
#define REPRISE_NET_SOCK_DIAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/vec.h"

/* One Unix socket of this network namespace, as NETLINK_SOCK_DIAG shows it. */
struct unix_info {
	uint32_t ino;
	uint8_t type, state, shutdown;
	bool has_peer;
	uint32_t peer; /* inode; 0: the peer has none (closed, or not accepted yet) */
	bool has_file;
	uint32_t file_ino, file_dev; /* of the path it is bound to; dev in the kernel's encoding */
	uint32_t rqueue, wqueue;     /* of a listener: clients waiting, and how many may */
	uint8_t *name;
	uint32_t name_len;
	uint32_t *clients; /* inodes of those that wait, in the order of accept() */
	uint32_t nclients;
};

struct unix_table {
	VEC(struct unix_info) list; /* sorted by ino */
};

/* One pass over all of them: asking for each alone makes the kernel search its whole table each
 * time. */
int unix_table_read(struct unix_table *ret, struct error *e) must_check;
const struct unix_info *unix_table_find(const struct unix_table *t, uint64_t ino);
void unix_table_free(struct unix_table *t);

#endif
