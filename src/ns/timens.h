/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_TIMENS_H
#define REPRISE_NS_TIMENS_H

#include "model/restart.h"
#include "core/scratch.h"
#include "ns.pb-c.h"

/*
 * Time namespaces: their clocks go on from where they were at the checkpoint, so that points in
 * time that tasks know stay what they were, whatever the clocks of the machine show.
 */

/* By how much its clocks are ahead of the machine's. tid: who is in it; 0: nobody, ns is. */
int timens_checkpoint(int proc_fd, pid_t tid, int ns, Reprise__Container *msg, struct scratch *s,
		      struct error *e) must_check;
/* The clocks of the machine, by which those are told: when all times left have been asked for. */
int timens_checkpoint_clocks(struct checkpoint *c, struct error *e) must_check;

int timens_validate(const struct restart *r, const Reprise__Container *msg,
		    struct error *e) must_check;
/* A new one: a descriptor. */
int timens_restart(struct restart *r, const Reprise__Container *msg, struct error *e) must_check;

#endif
