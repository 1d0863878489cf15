/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_LOOPBACK_H
#define REPRISE_NET_LOOPBACK_H

#include <netinet/in.h>
#include <sys/socket.h>

/* Where a socket of ours talks to another one. */
struct endpoint {
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} addr;
	socklen_t len;
};

/* Without a port. */
static inline struct endpoint loopback(int family)
{
	struct endpoint p = {};

	if (family == AF_INET) {
		p.addr.in.sin_family = AF_INET;
		p.addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		p.len = sizeof(p.addr.in);
	} else {
		p.addr.in6.sin6_family = AF_INET6;
		p.addr.in6.sin6_addr = in6addr_loopback;
		p.len = sizeof(p.addr.in6);
	}
	return p;
}

#endif
