/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_ATTACHED_PROGRAMS_H
#define REPRISE_NS_ATTACHED_PROGRAMS_H

#include "ns/net_links.h"

/*
 * BPF programs that are attached to the network of a container. They live without any descriptor,
 * and only the thing itself tells of them, to who may attach some (CAP_NET_ADMIN or CAP_SYS_ADMIN,
 * in the first user namespace).
 */

/* What there is in the network namespace where we are, and at its interfaces; NULL: nothing. */
const char *attached_to_network(int proc_fd);
const char *attached_to_interface(int index);

#endif
