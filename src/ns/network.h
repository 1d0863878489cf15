/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_NETWORK_H
#define REPRISE_NS_NETWORK_H

#include "core/error.h"
#include "core/scratch.h"
#include "model/restart.h"
#include "ns.pb-c.h"
#include "ns/net_links.h"
#include "ns/net_settings.h"

/* A network namespace of its own: what is in it, saved and made again. */
struct network {
	struct net_host host;
	struct net_settings fresh; /* of a new namespace */
	struct net_files files;	   /* of this one */
	struct net_others others;  /* interfaces that do not come with it */
	struct scratch s;
};
#define NETWORK_INIT                   \
	{                              \
		.host = NET_HOST_INIT, \
	}
void network_free(struct network *n);

/* Before the namespaces are entered, or made: this process, which that /proc shows, is on the host.
 */
int network_begin(struct network *n, int proc_fd, struct error *e) must_check;
/* This process is in it. What cannot be saved is refused. May be called again, when all stand. */
int network_checkpoint(struct network *n, int proc_fd, Reprise__Container *msg, struct scratch *s,
		       struct error *e) must_check;
int network_validate(const Reprise__Container *msg, struct error *e) must_check;
/*
 * This process is in the new one, which has that id in the image (0: the container's). wanted:
 * "veth", or "veth=ADDRESS/LENGTH,GATEWAY": another address than it had. NULL: another only if its
 * own is taken. What became of addresses is noted in r.
 */
int network_restart(struct network *n, struct restart *r, uint64_t id,
		    const Reprise__Container *msg, const char *wanted, struct error *e) must_check;
/* A new one, with a loopback interface, and as told by `how` with one that leads to the host. */
int network_make(struct network *n, const char *how, struct error *e) must_check;

#endif
