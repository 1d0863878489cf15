/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_INET_H
#define REPRISE_NET_INET_H

#include <netinet/in.h>
#include <stdbool.h>

#include "fs/context.h"
#include "net.pb-c.h"

enum inet_state { /* numbers stand in images: for ever */
		  INET_UNCONNECTED = 1,
		  INET_LISTENING = 2,
		  INET_CONNECTED = 3, /* datagrams */
		  INET_CLOSED = 4,    /* TCP: has seen the end, and no error waits */
		  INET_RESET = 5,     /* TCP: ECONNRESET waits to be read */
		  INET_REFUSED = 6,   /* TCP: was never connected, ECONNREFUSED waits to be read */
};

/* With several paths (262, IPPROTO_MPTCP) or without: to who has the socket it is the same. */
static inline bool inet_is_tcp(const Reprise__Socket *m)
{
	return m->type == SOCK_STREAM &&
	       (m->protocol == IPPROTO_TCP || m->protocol == IPPROTO_MPTCP);
}

static inline bool inet_is_udp(const Reprise__Socket *m)
{
	return m->type == SOCK_DGRAM &&
	       (m->protocol == IPPROTO_UDP || m->protocol == IPPROTO_UDPLITE);
}

static inline bool inet_is_ping(const Reprise__Socket *m)
{
	return m->type == SOCK_DGRAM &&
	       (m->protocol == IPPROTO_ICMP || m->protocol == IPPROTO_ICMPV6);
}

/* "10.0.0.1:80"; buf has room for 80 characters. */
void inet_format(const ProtobufCBinaryData *address, char *buf, size_t size);

void inet_drop_option(Reprise__Socket *m, int level, int name);

/* Addresses and socket of m have been filled in. */
int inet_tcp_save(struct checkpoint *c, const struct file_seen *f, Reprise__InetSocket *m,
		  struct scratch *s, struct error *e) must_check;
int inet_tcp_refuse(const Reprise__InetSocket *m, int state, struct error *e) must_check;
/* One that is about to be connected: refused by inet_connecting_check(), unless somebody claims
 * it (net/tcp.h). */
int inet_connecting_add(struct checkpoint *c, const struct file_seen *f,
			struct error *e) must_check;
int inet_connecting_check(struct checkpoint *c, struct error *e) must_check;
void inet_connecting_end(struct checkpoint *c);
/* The same once the tasks have ended: a ring of io_uring may hold them for a moment yet, and with
 * them the place that the restart wants (io_ring_exit_work()). */
void inet_connecting_cut(struct checkpoint *c);
void inet_tcp_checkpoint_end(struct checkpoint *c);
/* Whether it comes back as a connection that is over. */
bool inet_tcp_is_over(const Reprise__InetSocket *m);
/* Such a socket, with what had not been read; with owner and options. */
int inet_tcp_make_over(struct restart *restart, const Reprise__InetSocket *m, int *ret_fd,
		       struct error *e) must_check;

#endif
