/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_CONNTRACK_H
#define REPRISE_NS_CONNTRACK_H

#include "core/error.h"
#include "core/scratch.h"
#include "model/restart.h"
#include "ns.pb-c.h"

/*
 * Connections that a network namespace keeps track of, for rules that ask for their state, and for
 * address translation.
 */

/* Those of the namespace that this process is in, into m. proc_fd: any /proc; -1 for /proc. */
int conntrack_checkpoint(int proc_fd, Reprise__Network *m, struct scratch *s,
			 struct error *e) must_check;
int conntrack_validate(const Reprise__Network *m, struct error *e) must_check;
/* When the rules are there. Those of addresses that the container has not any more are left out. */
int conntrack_restart(const struct restart *r, const Reprise__Network *m,
		      struct error *e) must_check;

#endif
