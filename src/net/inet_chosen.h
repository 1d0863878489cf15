/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_INET_CHOSEN_H
#define REPRISE_NET_INET_CHOSEN_H

#include <sys/socket.h>

#include "fs/context.h"

/* Of a connected one of UDP: what of its own address connect() has chosen. */
int inet_chosen_save(struct checkpoint *c, int fd, Reprise__InetSocket *m, struct scratch *s,
		     struct error *e) must_check;
bool inet_chosen_valid(const Reprise__InetSocket *m);
/* Connects it so that the same is chosen: 1. 0: bind() and connect() have to do. -EADDRINUSE. */
int inet_chosen_restore(int fd, const Reprise__InetSocket *m, const struct sockaddr *local,
			const struct sockaddr *remote) must_check;

#endif
