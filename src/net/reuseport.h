/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_REUSEPORT_H
#define REPRISE_NET_REUSEPORT_H

#include "fs/context.h"

/* Refuses a socket of a group that a program rules. Nothing but the kernel's memory tells. */
int reuseport_check(struct checkpoint *c, int fd, struct error *e) must_check;

#endif
