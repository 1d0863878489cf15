/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_TUN_H
#define REPRISE_NET_TUN_H

#include "core/error.h"
#include "core/scratch.h"
#include "net.pb-c.h"

/* The interface behind a tun or tap descriptor: tun_link.c. */

int tun_link_save(const char *name, Reprise__TunLink **ret, struct scratch *s,
		  struct error *e) must_check;
int tun_link_validate(const Reprise__TunLink *m, struct error *e) must_check;
/* Of an interface that has just been made. */
int tun_link_restore(int fd, const char *name, const Reprise__TunLink *m,
		     struct error *e) must_check;
/* Settings, addresses and routes of all interfaces that were made, before sockets need them. */
struct restart;
int tun_links_restore(struct restart *r, struct error *e) must_check;

#endif
