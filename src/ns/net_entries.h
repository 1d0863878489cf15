/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NET_ENTRIES_H
#define REPRISE_NS_NET_ENTRIES_H

#include <linux/if.h>
#include <protobuf-c/protobuf-c.h>

#include "core/error.h"
#include "core/scratch.h"
#include "core/vec.h"

/*
 * What a network namespace has in lists: addresses, routes, next hops that have a
 * number, rules, neighbours, labels of addresses. An entry is the
 * message by which the kernel is told to make it, without what is only true of a moment: so two
 * entries are equal if their bytes are. What is not known is refused.
 */
enum net_entries {
	NET_ADDRESSES,
	NET_RULES,
	NET_NEXT_HOPS,
	NET_ROUTES,
	NET_NEIGHBOURS,
	NET_PROXIES,
	NET_LABELS,
	NET_ENTRIES,
};

struct net_list {
	VEC(ProtobufCBinaryData) list;
};

struct rtnl_message;

/* Adds the payload of a message, copied to s. 0 or -ENOMEM, also where there are too many. */
int net_list_add(struct net_list *list, const struct rtnl_message *m, struct scratch *s) must_check;

/* Interfaces that are somebody else's, whose addresses, routes and settings are left alone. */
struct net_other {
	int index;
	char name[IFNAMSIZ];
	bool tun; /* or tap: it is that of a descriptor */
};

struct net_others {
	VEC(struct net_other) list;
};
bool net_others_have(const struct net_others *o, int index);
bool net_others_have_name(const struct net_others *o, const char *name, size_t len);

/* All of a kind; index: of this interface only, 0 for all. Bytes are of s. */
int net_entries_look(int fd, enum net_entries kind, int index, const struct net_others *others,
		     struct net_list *ret, struct scratch *s, struct error *e) must_check;
int net_entries_validate(enum net_entries kind, size_t n, const ProtobufCBinaryData *entries,
			 struct error *e) must_check;
/*
 * Adds what is missing, and removes what the kernel made by itself and was not there. In the end
 * all is as it was, or it is an error. `soon` tells that the kernel adds more in a moment.
 */
int net_entries_restore(int fd, enum net_entries kind, size_t n, const ProtobufCBinaryData *entries,
			const struct net_others *others, struct error *e) must_check;
/* Adds them to an interface, whatever its number was. */
int net_addresses_add(int fd, int index, size_t n, const ProtobufCBinaryData *entries,
		      struct error *e) must_check;

#endif
