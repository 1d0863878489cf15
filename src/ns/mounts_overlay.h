/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNTS_OVERLAY_H
#define REPRISE_NS_MOUNTS_OVERLAY_H

#include "ns/mounts.h"

/* What an overlay is made of. `root`: a descriptor of where it is mounted. */
int mounts_look_overlay(struct mounts_survey *sv, const struct mount_line *m, int root,
			Reprise__Mount *msg, struct scratch *s, struct error *e) must_check;
/* That an image names nothing but what an overlay can be made of. */
int mounts_validate_overlay(const Reprise__Mount *m, struct error *e) must_check;

#endif
