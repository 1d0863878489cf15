/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_FOREIGN_H
#define REPRISE_NS_FOREIGN_H

#include "ns/mounts.h"

/*
 * The restart of a container in whose user namespace we have no name: we become somebody there, and
 * do not come to what only we may enter. What it needs of outside is opened before.
 */
struct foreign {
	int *sources; /* a copy of what each mount shows of outside, mounted nowhere; -1: none */
	size_t n;
	const Reprise__Container *msg;
};

/* In a mount namespace of our own, before the user namespace is made. */
int foreign_begin(struct foreign *f, const Reprise__Container *msg,
		  const struct mounts_place *place, struct error *e) must_check;
/* As mounts_place.external. */
int foreign_source(const void *foreign, const Reprise__Mount *m);
void foreign_end(struct foreign *f);

#endif
