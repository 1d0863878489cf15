/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NET_PAIRS_H
#define REPRISE_NS_NET_PAIRS_H

#include "model/checkpoint.h"
#include "model/restart.h"
#include "ns.pb-c.h"

/*
 * Pairs of interfaces (veth) of which each end is in another network namespace of the image. The
 * root's has the id 0; if it is the host's, its ends are those of the host, and told otherwise.
 */

/* ---- checkpoint ---- */

/*
 * At first, only the number is known that the kernel has given the other namespace in the one where
 * this process is now.
 */
int net_pair_note(Reprise__NetLink *m, int32_t number, int index, struct scratch *s) must_check;
/*
 * Finds out which it is, for all interfaces of one namespace, in which this process is: a refusal
 * if it is none of the tree.
 */
int net_pairs_resolve(const struct checkpoint *c, int root, const Reprise__Network *m,
		      struct error *e) must_check;
/* Each end is the other's. `of`: the network with that id; NULL: not known here, and not checked.
 */
typedef const Reprise__Network *(*net_pairs_of)(const void *arg, uint64_t id);
int net_pairs_check(uint64_t id, const Reprise__Network *m, net_pairs_of of, const void *arg,
		    struct error *e) must_check;

/* ---- restart ---- */

int net_pairs_validate(const struct restart *r, struct error *e) must_check;
/* Makes the namespaces to which interfaces lead, all of them, empty: what is made in the first has
 * its other end there at once. This process is in the root's. Once more does nothing. */
int net_pairs_begin(struct restart *r, struct error *e) must_check;
void net_pairs_end(struct restart *r);
/* Goes into the one with that id; -ENOENT: it has not been made. */
int net_pairs_enter(const struct restart *r, uint64_t id);

/* For whoever makes the interfaces of a namespace. */
struct net_pairs {
	struct restart *r;
	uint64_t id; /* of that */
};
/* Where the other end is to be, and what it is. NULL: the pair is there already. */
const Reprise__NetLink *net_pair_other(const struct net_pairs *p, const Reprise__NetLink *m,
				       int *ret_ns);
/* Brings it up, if it was: so this end has a carrier from the beginning. 0 or a negative errno. */
int net_pair_up(const struct net_pairs *p, const Reprise__NetLink *m);
/* The interfaces of this one are there. */
void net_pairs_made(const struct net_pairs *p);

#endif
