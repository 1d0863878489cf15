/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_QUEUEING_H
#define REPRISE_NS_QUEUEING_H

#include "ns/net_links.h"

/*
 * Queueing disciplines of interfaces, with their classes and filters (tc): each the message of
 * rtnetlink by which it is made, in an order in which all can be. Those that the kernel has given
 * an interface by itself are not told. This process is in the namespace.
 */
int queueing_checkpoint(int fd, const struct net_links *links, Reprise__Network *m,
			struct scratch *s, struct error *e) must_check;
int queueing_validate(const Reprise__Network *m, struct error *e) must_check;
/* The interfaces are there. */
int queueing_restart(int fd, const Reprise__Network *m, struct error *e) must_check;

/* ---- between the two files of this subject ---- */

/* What of the options of a kind is taken back, in `to`, or a refusal. */
int queueing_take_qdisc(const char *kind, const void *options, size_t len, struct rtnl_message *to,
			struct error *e) must_check;
int queueing_take_filter(const char *kind, const void *options, size_t len, struct rtnl_message *to,
			 struct error *e) must_check;
/* Has this one classes that somebody has made? */
bool queueing_has_classes(const char *kind);
bool queueing_known(uint32_t type, const char *kind);

#endif
