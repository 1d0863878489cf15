/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_MOUNTS_IDMAP_H
#define REPRISE_NS_MOUNTS_IDMAP_H

#include "ns/mounts.h"

/*
 * Mounts that show other owners than their files have (mount_setattr(2), MOUNT_ATTR_IDMAP): those
 * of what is outside, or of a part of another mount.
 */
bool mounts_idmapped(const struct mount_line *m);
/* What it makes of the ids of files, which the kernel tells since Linux 6.15. */
int mounts_idmap_look(int proc_fd, pid_t pid, const struct mount_line *m, Reprise__Mount *msg,
		      struct scratch *s, struct error *e) must_check;
bool mounts_idmap_valid(const Reprise__Mount *m);
/* fd: a copy that is attached nowhere yet; top: what is mounted over the root directory. Nothing
 * happens where there is no such map. */
int mounts_idmap_restart(int fd, int top, const Reprise__Mount *m, struct error *e) must_check;

#endif
