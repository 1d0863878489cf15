/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_GATE_H
#define REPRISE_NET_GATE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * For packets that bear a mark of ours, and are meant for one socket alone.
 */

/* A mark that others are not likely to use. */
uint32_t gate_mark(void);

/*
 * No other socket of this machine takes packets with the mark as long as the returned descriptor is
 * open, whoever holds it. It takes the rights of root, and control groups with BPF.
 */
int gate_open(int fd, uint32_t mark);
/* Whether this kernel and these rights allow both; nothing is changed. 0, or a negative errno. */
int gate_probe(bool v6);

/*
 * Of IPv6: neither do the kernel's own protocols. For a minute at most, or until the descriptor is
 * given to gate_unblock().
 */
int gate_block_v6(int fd, uint32_t mark);
void gate_unblock_v6(int *policy, int fd, uint32_t mark);

#endif
