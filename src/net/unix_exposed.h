/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NET_UNIX_EXPOSED_H
#define REPRISE_NET_UNIX_EXPOSED_H

#include <sys/types.h>

#include "core/error.h"

/*
 * For root: may somebody else put another directory in the place of this one at any moment? path:
 * by which `dir` was opened, with or without a slash at its end.
 */
bool unix_exposed(const char *path, int dir);
/* What is made there now must be no more than the owner of it could make himself. */
int unix_check_right(int dir, uid_t uid, gid_t gid) must_check;

#endif
