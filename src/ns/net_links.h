/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NET_LINKS_H
#define REPRISE_NS_NET_LINKS_H

#include "core/error.h"
#include "core/scratch.h"
#include "core/vec.h"
#include "ns.pb-c.h"
#include "ns/net_entries.h"

#define NET_LINKS_MAX 10000
#define NET_MODE_NONE 1 /* IN6_ADDR_GEN_MODE_NONE */

/* The network namespace of the host, as seen by somebody who is in another one. */
struct net_pairs;
struct net_host {
	int ns;	   /* a descriptor of it */
	int rtnl;  /* a conversation about it */
	bool ours; /* it is that of the container, and this one of some of its tasks */
	const struct net_pairs *pairs; /* at a restart: other namespaces of the image; NULL: none */
};
#define NET_HOST_INIT                        \
	{                                    \
		.ns = -EBADF, .rtnl = -EBADF \
	}
/* Of the namespace in which this process is now. */
int net_host_open(struct net_host *host, int proc_fd, struct error *e) must_check;
void net_host_close(struct net_host *host);
/*
 * Between looking whether an address is free there and having it. Whoever holds it for long is not
 * waited for: then two may choose the same.
 */
void net_host_lock(const struct net_host *host);
void net_host_unlock(const struct net_host *host);

struct net_links {
	VEC(Reprise__NetLink *) list;
	struct net_others others; /* tun and tap: with their descriptors */
};

/* Interfaces of the namespace that fd speaks about, with what they lead to on the host. */
int net_links_look(int fd, const struct net_host *host, struct net_links *ret, struct scratch *s,
		   struct error *e) must_check;
int net_links_validate(const Reprise__Network *m, struct error *e) must_check;
/* Makes them, with their ends on the host; nothing is up. */
int net_links_make(int fd, const struct net_host *host, const Reprise__Network *m,
		   struct error *e) must_check;
int net_links_up(int fd, const struct net_host *host, const Reprise__Network *m,
		 struct error *e) must_check;
/* When the addresses are there. */
int net_links_finish(int fd, const Reprise__Network *m, struct error *e) must_check;

/* By what number the namespace of the conversation knows another; negative: by none. */
int net_id_of(int fd, int ns);
/* The number of an interface by its name, or a negative errno. */
int net_index_of(int fd, const char *name);

/* ---- attributes by which an interface is set ---- */

struct rtnl_message;
/* Of a message of the kernel: those that can be set. */
int net_attributes_take(const void *info, size_t len, ProtobufCBinaryData *ret, struct scratch *s);
bool net_attributes_valid(const ProtobufCBinaryData *a);
/* Sets those that differ from what the interface has. */
int net_attributes_set(int fd, int index, const ProtobufCBinaryData *wanted,
		       struct error *e) must_check;
/* How IPv6 makes addresses by itself; 0 or a negative errno. */
int net_mode_set(int fd, int index, uint8_t mode);
/* Flags and nothing else; 0 or a negative errno. */
int net_flags_set(int fd, int index, uint32_t flags);
#define NET_LINK_FLAGS (IFF_UP | IFF_DEBUG | IFF_NOARP | IFF_PROMISC | IFF_ALLMULTI | IFF_MULTICAST)

#endif
