/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_INET_QUEUE_H
#define REPRISE_NET_INET_QUEUE_H

#include "core/error.h"
#include "core/scratch.h"
#include "fs/context.h"
#include "net.pb-c.h"

/* Datagrams that wait in the queue of an internet socket, and who sent them. */
int inet_queue_save(struct checkpoint *c, const struct file_entry *f, int fd,
		    Reprise__InetSocket *m, struct scratch *s, struct error *e) must_check;
int inet_queue_validate(const Reprise__InetSocket *m, struct error *e) must_check;
/*
 * Of a new socket that has neither an address nor options: both come later. `other`, which may be
 * called with -1: an open socket of the tree that has the given address, or -1.
 */
int inet_queue_fill(int fd, const Reprise__InetSocket *m,
		    int (*other)(void *arg, const ProtobufCBinaryData *address), void *arg,
		    struct error *e) must_check;

/* The error of a datagram that nobody took, of a socket without an address. */
int inet_refusal_make(int fd, const Reprise__InetSocket *m, struct error *e) must_check;

/* Makes room for n bytes in the queue of a socket; the returned value goes to buffer_narrow(). */
int buffer_widen(int fd, size_t n);
void buffer_narrow(int fd, int was);

#endif
