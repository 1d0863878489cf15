/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNTS_EARLY_H
#define REPRISE_NS_MOUNTS_EARLY_H

#include "model/restart.h"
#include "ns.pb-c.h"

/*
 * File systems in memory. Their files are there before anything is mounted: something will lie over
 * them, parts of them are bound elsewhere, or an overlay is made of what is in them.
 */

/* A new file system of the user namespace that we are in, mounted nowhere: a descriptor, or a
 * negative errno. */
int mounts_new(const Reprise__Mount *m);

/* One descriptor for each of msg->mounts, or -1. */
struct mounts_early {
	int *fds; /* NULL: there is none */
	size_t n;
};
bool mounts_early_any(const Reprise__Container *msg);
int mounts_early_make(struct mounts_early *ret, const Reprise__Container *msg,
		      struct error *e) must_check;
/*
 * Their files. Those that were noted as early when they were saved stand before the others in the
 * image. become: makes us who owns them, and ends it again; may be NULL.
 */
int mounts_early_fill(struct mounts_early *early, struct restart *r, const Reprise__Container *msg,
		      bool noted, void (*become)(void *arg, bool on), void *arg,
		      struct error *e) must_check;
/* No memory for them: a negative errno. */
int mounts_early_init(struct mounts_early *ret, size_t n);
/* The file system, by whichever of its mounts it is written to; nothing else of it changes. */
int mounts_make_readonly(int dir_fd, const char *path, struct error *e) must_check;
void mounts_early_free(struct mounts_early *early);

#endif
