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
	int *uppers;  /* of overlays: the directory of the writable layer */
	size_t n;
	const Reprise__Container *msg;
	pid_t pid; /* of a process that stays root of the machine; 0: there is none */
	int helper;
};

/* In a mount namespace of our own, before the user namespace is made. */
int foreign_begin(struct foreign *f, const Reprise__Container *msg,
		  const struct mounts_place *place, struct error *e) must_check;
/* The directory of the writable layer of the i-th mount, which belongs to whom we become there: a
 * descriptor; -1: that is no such one. */
int foreign_upper(const struct foreign *f, size_t i);
/* Sets an attribute that only root of the machine may set, as lsetxattr(2). */
int foreign_set_mark(const struct foreign *f, int parent, const char *name, const char *attribute,
		     const void *value, size_t len);
/* All are filled: overlays are mounted by who sees their marks. */
int foreign_mount_overlays(struct foreign *f, struct error *e) must_check;
/* As mounts_place.external. */
int foreign_source(const void *foreign, const Reprise__Mount *m);
void foreign_end(struct foreign *f);

#endif
