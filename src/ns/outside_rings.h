/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_OUTSIDE_RINGS_H
#define REPRISE_NS_OUTSIDE_RINGS_H

#include "core/kernel_memory.h"
#include "ns/outside.h"

/*
 * The rings of io_uring that were seen outside, and the files that they keep open: registered ones,
 * and those of requests that wait. Costs nothing where there is no ring.
 */
struct outside_rings;
int outside_rings_new(struct outside_rings **ret, struct kernel_memory *k);
void outside_rings_free(struct outside_rings *s); /* accepts NULL */

/* A struct file is of one if this is the device of its inode, and this its name begins with. */
bool outside_rings_is(const struct outside_rings *s, dev_t dev, uint64_t name);
/* ring: a descriptor, or RING_MAPPED. */
void outside_rings_see(struct outside_rings *s, uint64_t file, pid_t tid, int ring);
/* task_struct.io_uring, which few have: rings may be known there by a number alone. */
void outside_rings_see_numbers(struct outside_rings *s, uint64_t at, pid_t tid);
/* What they keep, into o->held: with names; or, if tasks are known, without, and not what those of
 * them have that are `inside`. All that were seen are forgotten. */
int outside_rings_read(struct outside_rings *s, struct outside *o, bool tasks_known) must_check;

#endif
