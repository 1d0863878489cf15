/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_RAW_QUEUE_H
#define REPRISE_NET_RAW_QUEUE_H

#include "core/error.h"
#include "core/scratch.h"
#include "fs/context.h"
#include "net.pb-c.h"

/* Packets that wait in a raw or an ICMP socket, whose options have been saved. */
int raw_queue_save(struct checkpoint *c, int fd, Reprise__InetSocket *m, struct scratch *s,
		   struct error *e) must_check;
int raw_queue_validate(const Reprise__InetSocket *m, struct error *e) must_check;

/* A new raw socket takes nothing until it is opened again, when it has all that it had. */
int raw_queue_shut(int fd, const Reprise__InetSocket *m, struct error *e) must_check;
int raw_queue_unshut(int fd, const Reprise__InetSocket *m, struct error *e) must_check;
/* Of a raw socket that has neither address nor options, of one of ICMP that has both. */
int raw_queue_fill(int fd, const Reprise__InetSocket *m, struct error *e) must_check;

#endif
