/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_NFNL_H
#define REPRISE_NET_NFNL_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A conversation with the kernel about netfilter. */

int nfnl_open(void); /* a descriptor, or a negative errno */

/* Messages that are sent at once. Their numbers count from 0. */
struct nfnl_batch {
	uint8_t *bytes;
	size_t len, cap;
	size_t last;   /* where the last begins */
	uint32_t n;    /* how many there are */
	bool too_much; /* or no memory */
};
void nfnl_batch_free(struct nfnl_batch *b);

/* A message of a subsystem with a body, struct nfgenmsg and what is behind it. */
void nfnl_message(struct nfnl_batch *b, uint16_t type, uint16_t flags, const void *body,
		  size_t len);
/* What is added to the last message. */
void nfnl_attribute(struct nfnl_batch *b, uint16_t type, const void *data, size_t len);
/* Around messages of which either all take effect or none (subsystems that know this). */
void nfnl_begin(struct nfnl_batch *b, uint16_t subsystem);
void nfnl_end(struct nfnl_batch *b, uint16_t subsystem);

/* Sends them. Errors are told by the number of their message; 0, or why they could not be sent. */
typedef void (*nfnl_error)(void *arg, uint32_t message, int error);
int nfnl_send(int fd, struct nfnl_batch *b, nfnl_error each, void *arg);

#endif
