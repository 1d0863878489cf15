/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNTS_LAYERS_H
#define REPRISE_NS_MOUNTS_LAYERS_H

#include "ns/mounts.h"

/* Options that a new file system is made with, of those that mountinfo tells. NULL: no memory. */
char *mounts_data(const struct mounts_survey *sv, struct scratch *s, const char *super);
/* A file system in memory, that goes into the image as a layer. */
int mounts_look_memory(struct mounts_survey *sv, const struct mount_line *m, Reprise__Mount *msg,
		       struct scratch *s, struct error *e) must_check;

#endif
