/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_EBTABLES_H
#define REPRISE_NS_EBTABLES_H

#include "core/error.h"

/* Rules of old ebtables (those of nftables are elsewhere) in the network namespace of this process:
 * refused. */
int ebtables_refuse(int proc_fd, struct error *e) must_check;

#endif
