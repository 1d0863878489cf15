/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_NAMESPACES_H
#define REPRISE_KERNEL_NAMESPACES_H

#include "model/checkpoint.h"

#define NAMESPACES 2

/* Our own, as /proc/PID/ns names them; NULL: this kernel has none of that kind. */
struct namespaces {
	char *own[NAMESPACES];
};

int namespaces_read(const struct checkpoint *c, struct namespaces *ret, struct error *e) must_check;
void namespaces_free(struct namespaces *ns);
/*
 * Are all threads of the process, and the children that they would make, in the namespaces in which
 * reprise is, or in those below that have been found? -EXDEV if not: the first that is in
 * another. May be called by any thread.
 */
int namespaces_compare(const struct checkpoint *c, const struct namespaces *ns,
		       const struct checkpoint_process *p, bool *children_apart,
		       struct error *e) must_check;

#endif
