/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNTS_COVERED_H
#define REPRISE_NS_MOUNTS_COVERED_H

#include "model/checkpoint.h"
#include "model/restart.h"
#include "ns.pb-c.h"

/*
 * Files to which no path leads, since something was mounted over them, or over what they are on.
 * They are reached from the place on which that was mounted: what its path says from there on is in
 * nobody's way.
 */

/* The mount of a file, if it is one of a mount namespace that is saved; else 0. */
int mount_of_file(struct checkpoint *c, int fd, uint64_t space);

struct mount_covered {
	int by;	     /* the mount that is in the way; 0: none is, and nothing else is told */
	int root;    /* a copy of the mount that the file is on, alone; not the caller's */
	size_t skip; /* so much of the path leads to that one */
};
/* path: as the kernel tells it. mount: see above. */
int mounts_look_covered(struct checkpoint *c, int mount, uint64_t space, const char *path,
			struct mount_covered *ret, struct error *e) must_check;

/* Is that mount one of this namespace, and can a file of that path be below it? */
int mounts_validate_under(const struct restart *r, uint64_t space, int under, const char *path,
			  struct error *e) must_check;

/* What mounts were mounted on, where files of the image are below them. */
struct mounts_below {
	bool *wanted; /* one for each mount; NULL: none is */
	int *fds;     /* the same; made by who mounts */
	size_t n;
};
int mounts_below_begin(struct mounts_below *ret, struct restart *r, uint64_t space,
		       const Reprise__Container *msg, struct error *e) must_check;
/* The i-th is mounted on this, which stays the caller's. */
int mounts_below_note(struct mounts_below *b, size_t i, int on, struct error *e) must_check;
/* From who has mounted to whoever opens files. */
int mounts_below_send(struct mounts_below *b, int socket, struct error *e) must_check;
int mounts_below_receive(struct mounts_below *b, int socket, struct error *e) must_check;
/* They are there from now on. */
int mounts_below_add(struct mounts_below *b, struct restart *r, uint64_t space,
		     const Reprise__Container *msg, struct error *e) must_check;
void mounts_below_end(struct mounts_below *b);

#endif
