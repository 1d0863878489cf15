/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_ROOT_H
#define REPRISE_OPERATION_ROOT_H

#include <sys/types.h>

#include "core/error.h"
#include "model/restart.h"
#include "ns/container.h"
#include "ns/pidns.h"

/*
 * Makes the first process of the tree, with its pid, as a captive stub that dies with us; in a pid
 * namespace of its own (ns), if there is to be one, and with the mounts of its container. Told in
 * *ret, also when what comes after its birth fails: it is the caller's to kill.
 */
int root_restart(struct restart *r, struct container_restart *cr, struct pidns *ns, pid_t *ret,
		 struct error *e) must_check;

#endif
