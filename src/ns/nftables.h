/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NFTABLES_H
#define REPRISE_NS_NFTABLES_H

#include "ns/net_links.h"

/*
 * The rules of nftables in a network namespace. What the kernel tells of each table, chain, set and
 * rule is nearly what it has to be told to make it again, so nothing has to be understood; but only
 * what is known to come back is saved, and after a restart all is compared.
 */
struct nftables {
	VEC(Reprise__NftablesEntry *) list;
};

/* Those of the namespace that this process is in. Bytes are of s. */
int nftables_look(const struct net_others *others, struct nftables *ret, struct scratch *s,
		  struct error *e) must_check;
int nftables_validate(const Reprise__Network *m, struct error *e) must_check;
/* When the interfaces are there. */
int nftables_restart(const Reprise__Network *m, struct error *e) must_check;

/* ---- between the files of this subject ---- */

#define NFTABLES_TABLES_MAX  1024
#define NFTABLES_ENTRIES_MAX 1000000
#define NFTABLES_ENTRY_MAX   65000

/* Expressions that a rule, a set or its elements have: what a packet is compared with, counters. */
struct nft_expression {
	const char *name;
	const void *data; /* attributes */
	size_t len;
};
/* All of an entry; `each` may end it by a negative errno. -EPROTO: they are damaged. */
typedef int (*nft_each)(void *arg, const struct nft_expression *x);
int nft_expressions(uint32_t type, const void *body, size_t len, nft_each each, void *arg);
/* Refuses those that do not come back as they were. */
int nft_expressions_check(uint32_t type, const void *body, size_t len, struct error *e) must_check;
/*
 * Extensions of iptables in a rule are made for one protocol, which the kernel does not tell; the
 * rule itself looks at it. An attribute NFTA_RULE_COMPAT, or 0 bytes.
 */
size_t nft_compat_protocol(const void *body, size_t len, uint8_t ret[20]);
/* Changes in place what the kernel tells in another way than it takes it. */
int nft_mend(uint32_t type, void *body, size_t len);
/* Times that go on. */
int nft_settle_times(uint32_t type, void *body, size_t len);
/* A string among the attributes of an entry; "" if there is none. */
const char *nft_string(const void *body, size_t len, uint16_t type);

#endif
