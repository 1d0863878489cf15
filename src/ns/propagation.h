/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_PROPAGATION_H
#define REPRISE_NS_PROPAGATION_H

#include "ns/mounts.h"

/*
 * Which mounts exchange what is mounted on them (mount_namespaces(7)): peers, and slaves of a group
 * of peers. Of a group within a namespace one is the first, whom the others join; a namespace of
 * tasks joins the mounts of the root's. A master outside is left.
 */

/* Has it anything to do with others, so that a copy would not have it by itself? */
bool propagation_matters(const struct mounts_survey *sv, const struct mount_line *m);
/* Fills in what the message says of it. */
int propagation_look(const struct mounts_survey *sv, int proc_fd, pid_t pid,
		     const struct mount_line *m, Reprise__Mount *msg, struct error *e) must_check;

int propagation_validate(const Reprise__Container *msg, struct error *e) must_check;
/* The mounts of the root's namespace that are joined, for who is there: one descriptor for each of
 * msg->mounts, or -1. */
int propagation_open_root(const Reprise__Container *msg, int *fds, struct error *e) must_check;
/*
 * When all are mounted; namespaces: those of them as well. root_fds: from the function above;
 * made: descriptors of them, or -1 where a path leads there. NULL: none.
 */
int propagation_restart(const Reprise__Container *msg, const int *root_fds, const int *made,
			bool namespaces, struct error *e) must_check;
/* Of one that is mounted later. */
int propagation_restart_one(const Reprise__Container *msg, size_t i, struct error *e) must_check;

#endif
