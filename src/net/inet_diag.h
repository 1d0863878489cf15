/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_INET_DIAG_H
#define REPRISE_NET_INET_DIAG_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/context.h"

/* What only a list of all sockets shows. */
struct inet_info {
	uint32_t ino;
	uint8_t shutdown; /* bits: 1 receive, 2 send */
	bool has_keys;	  /* TCP_MD5SIG; root alone sees them */
};

/* NULL in *ret: it is not listed (TCP is when it listens, UDP when it has a port), or this kernel
 * has no such list. */
int inet_diag_find(struct checkpoint *c, int family, int protocol, uint64_t ino,
		   const struct inet_info **ret, struct error *e) must_check;
void inet_diag_end(struct checkpoint *c);

#endif
