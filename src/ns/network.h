/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NETWORK_H
#define REPRISE_NS_NETWORK_H

#include "core/error.h"
#include "core/scratch.h"
#include "ns.pb-c.h"

/* A network namespace of its own: what is in it, saved and made again. The process is in it. */
int network_checkpoint(Reprise__Container *msg, struct scratch *s, struct error *e) must_check;
int network_restart(const Reprise__Container *msg, struct error *e) must_check;
int network_loopback_up(struct error *e) must_check;

#endif
