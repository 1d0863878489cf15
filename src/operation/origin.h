/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_ORIGIN_H
#define REPRISE_OPERATION_ORIGIN_H

#include <stdbool.h>

#include "image/image.h"

/*
 * The key of root of this machine, by which images are known that root made here. Nobody else can
 * read it. make: unless there is one. 0, or a negative errno: nothing is known then.
 */
int origin_key(struct image_key *ret, bool make) must_check;
/* Are we root, and not only that of a user namespace? */
bool origin_matters(void);

#endif
