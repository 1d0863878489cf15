/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_CGROUP_VISIT_H
#define REPRISE_NS_CGROUP_VISIT_H

#include "ns/cgroups.h"

/*
 * What the kernel books to the control group of whoever makes it, and leaves there, is made by a
 * process that is in the container's for that moment. Who may not come back does not go.
 */

/* The groups of a container are there; we are still outside. */
int cgroup_visit_begin(struct cgroups_restart *cr, const Reprise__CgroupTree *t,
		       struct error *e) must_check;
void cgroup_visit_end(struct cgroups_restart *cr);
/*
 * A socket belongs for ever to the group of version 2 in which its maker was: BPF programs of that
 * one and rules of firewalls (`socket cgroupv2`, `-m cgroup`) go by it. To the one with this
 * Cgroup.id; 0: to the first. 1: it is to go back; 0: it stays where it is, since the container has
 * no such group.
 */
int cgroup_visit_for_socket(const struct restart *r, uint64_t id, struct error *e) must_check;
int cgroup_return_with_socket(const struct restart *r, struct error *e) must_check;
/* Memory that is shared is charged to whoever writes to it first. To the container's first groups.
 */
int cgroup_visit_for_memory(const struct restart *r, struct error *e) must_check;
int cgroup_return_from_memory(const struct restart *r, struct error *e) must_check;

#endif
