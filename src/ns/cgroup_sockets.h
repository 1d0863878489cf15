/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_CGROUP_SOCKETS_H
#define REPRISE_NS_CGROUP_SOCKETS_H

#include "ns/cgroups.h"

/*
 * A socket belongs for ever to the control group of version 2 in which its maker was: BPF programs
 * of that one and rules of firewalls (`socket cgroupv2`, `-m cgroup`) go by it.
 */

/* The groups of a container are there; we are still outside. */
int cgroup_sockets_begin(struct cgroups_restart *cr, const struct cgroup_hierarchies *all,
			 const Reprise__CgroupTree *t, struct error *e) must_check;
void cgroup_sockets_end(struct cgroups_restart *cr);
/*
 * This process goes there to make a socket, by Cgroup.id; 0: into the first one. 1: it is to go
 * back; 0: it stays where it is, since the container has no such group.
 */
int cgroup_sockets_enter(const struct restart *r, uint64_t id, struct error *e) must_check;
int cgroup_sockets_leave(const struct restart *r, struct error *e) must_check;

#endif
