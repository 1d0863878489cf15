/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NET_KINDS_H
#define REPRISE_NS_NET_KINDS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/scratch.h"
#include "ns.pb-c.h"

/* Kinds of interfaces that can be made again, and what is told to make one of the kind. */
struct net_kind {
	const char *name;
	bool stands_on_another; /* IFLA_LINK is what it stands on */
	uint64_t kept;		/* of IFLA_INFO_DATA */
	bool later;		/* they are set when it exists, where they differ */
};
/* NULL: no such kind. */
const struct net_kind *net_kind_of(const char *name);

/* Takes IFLA_LINKINFO of an interface, or refuses it. */
int net_kind_take(Reprise__NetLink *m, const void *info, size_t len, struct scratch *s,
		  struct error *e) must_check;
int net_kind_validate(const Reprise__NetLink *m, struct error *e) must_check;
/* Sets what differs, of the kind and of the port of a bridge that it is. */
int net_kind_settle(int fd, const Reprise__NetLink *m, struct error *e) must_check;

#endif
