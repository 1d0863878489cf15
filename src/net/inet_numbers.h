/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_INET_NUMBERS_H
#define REPRISE_NET_INET_NUMBERS_H

#include "core/error.h"
#include "net.pb-c.h"

/* How many there may have been to be counted again: some seconds. */
#define INET_NUMBERS_MAX (1u << 20)

/*
 * What a socket for datagrams counts, to tell by these numbers what a notice on its error queue is
 * about (SOF_TIMESTAMPING_OPT_ID, MSG_ZEROCOPY): as many are sent, to ourselves. Of a new socket,
 * which has no address afterwards.
 */
int inet_numbers_restore(int fd, const Reprise__InetSocket *m, struct error *e) must_check;

#endif
