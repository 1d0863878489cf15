/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_SETTINGS_H
#define REPRISE_NS_SETTINGS_H

#include "core/error.h"
#include "core/scratch.h"
#include "ns.pb-c.h"

/*
 * Settings below /proc/sys that belong to a namespace of its own. proc_fd: of
 * that namespace, or -1 for /proc. The process is in the namespace.
 */
int settings_checkpoint(int proc_fd, Reprise__Container *msg, struct scratch *s,
			struct error *e) must_check;
int settings_validate(const Reprise__Container *msg, struct error *e) must_check;
/* This process is in the new namespaces; proc_fd is any /proc. */
int settings_restart(int proc_fd, const Reprise__Container *msg, struct error *e) must_check;

#endif
