/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNTS_OVERLAY_H
#define REPRISE_NS_MOUNTS_OVERLAY_H

#include "ns/mounts.h"

/* In which mount namespace it is, and a descriptor of where it is mounted. */
struct overlay_place {
	int proc_fd;
	pid_t pid;
	int root;
};
/* What an overlay is made of. */
int mounts_look_overlay(struct mounts_survey *sv, const struct mount_line *m,
			const struct overlay_place *at, Reprise__Mount *msg, struct scratch *s,
			struct error *e) must_check;
/*
 * What a runtime has mounted outside to give it to its container, and unmounts when that ends
 * (podman, containerd): the files of the root, and the memory in /dev/shm, unless it is the host's.
 */
bool mounts_is_given(const struct mounts_survey *sv, const struct mount_line *m,
		     const struct overlay_place *at);
/* Is one of its directories there? super: as mountinfo tells them. */
bool mounts_overlay_needs(const char *super, const char *point);
/* That an image names nothing but what an overlay can be made of. */
int mounts_validate_overlay(const Reprise__Mount *m, struct error *e) must_check;
/* Mounts it on a name in a directory. below: the root that is still to be, or "". */
int mounts_restart_overlay(const Reprise__Mount *m, const struct mounts_place *place,
			   const char *below, int dir, const char *name,
			   struct error *e) must_check;

/* Are those that were mounted inside made of what their directories are at the restart? pid: of a
 * task that is there. */
int mounts_check_lower(struct checkpoint *c, const struct mounts_survey *sv, pid_t pid,
		       struct error *e) must_check;

#endif
