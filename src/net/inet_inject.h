/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_INET_INJECT_H
#define REPRISE_NET_INET_INJECT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"
#include "net.pb-c.h"

/*
 * Puts datagrams of any sender into the queue of a UDP or UDP-Lite socket that
 * has no address yet. For that time the kernel gives it a port that nobody else knows, so that
 * nothing else comes and no other socket gets what is meant for this one; then it has none again.
 */
struct injector;

/* other: an open socket that has an address, or -1; for ordinary users. */
int injector_new(struct injector **ret, int fd, const Reprise__Socket *m,
		 int (*other)(void *arg, const ProtobufCBinaryData *address), void *arg,
		 struct error *e) must_check;
int inject(struct injector *in, const Reprise__InetDatagram *d, struct error *e) must_check;
/* The socket keeps its queue and loses the port. */
int injector_release(struct injector *in, struct error *e) must_check;
void injector_free(struct injector **in);

/* The longest datagram that can be injected. */
size_t inject_max(bool v6);

#endif
