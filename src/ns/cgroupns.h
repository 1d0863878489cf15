/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_CGROUPNS_H
#define REPRISE_NS_CGROUPNS_H

#include "model/checkpoint.h"
#include "model/restart.h"

/*
 * A namespace of control groups that some tasks have. It must begin in the group of the root task,
 * where a restart makes it. inside: what the task's /proc/PID/cgroup says to somebody who is in it.
 */
int cgroupns_check(const struct checkpoint *c, pid_t tid, const char *inside,
		   struct error *e) must_check;
/* It begins in the control group of who makes it: the root's stub does, and comes back. */
int cgroupns_restart(struct restart *r, struct restart_space *s, struct error *e) must_check;

#endif
