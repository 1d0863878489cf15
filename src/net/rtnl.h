/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_RTNL_H
#define REPRISE_NET_RTNL_H

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A conversation with the kernel about interfaces, addresses and routes. */

int rtnl_open(void); /* a descriptor, or a negative errno */

/* A message that is being put together. */
struct rtnl_message {
	union {
		struct nlmsghdr header;
		uint8_t bytes[8192];
	};
	bool full;
};

void rtnl_begin(struct rtnl_message *m, uint16_t type, uint16_t flags, const void *body,
		size_t len);
void rtnl_attribute(struct rtnl_message *m, uint16_t type, const void *data, size_t len);
/* Sends it and waits for the answer: 0 or a negative errno. */
int rtnl_request(int fd, struct rtnl_message *m);

/* Asks for all of a kind; `each` may end it by a negative errno. */
typedef int (*rtnl_each)(void *arg, const struct nlmsghdr *h);
int rtnl_dump(int fd, uint16_t type, const void *body, size_t len, rtnl_each each, void *arg);
/* The same with a question that has attributes (NLM_F_DUMP). */
int rtnl_dump_message(int fd, const struct rtnl_message *m, rtnl_each each, void *arg);

/* An attribute in a payload whose fixed part has `fixed` bytes; its length in *ret_len. NULL. */
const void *rtnl_find(const void *payload, size_t len, size_t fixed, uint16_t type,
		      size_t *ret_len);
/* Goes through attributes: NULL behind the last, or at one that is damaged. */
struct rtnl_walk {
	const void *at;
	size_t left;
};
const struct rtattr *rtnl_next(struct rtnl_walk *w);
/* One of up to four bytes; 0 if there is none. */
uint32_t rtnl_number(const void *payload, size_t len, size_t fixed, uint16_t type);
/* Whether the attributes behind the fixed part are well-formed. */
bool rtnl_valid(const void *payload, size_t len, size_t fixed);

#endif
