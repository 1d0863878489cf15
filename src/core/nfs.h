/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_NFS_H
#define REPRISE_CORE_NFS_H

#include <stdbool.h>

/* What NFS, and some servers of FUSE, do otherwise than file systems of this machine. */

/*
 * A file on NFS that was removed while it was open has a name of the kernel's instead, which goes
 * when nobody of this machine has it open any more (nfs_sillyrename()). path: as the kernel tells
 * it.
 */
bool nfs_is_removed(int fd, const char *path);

/*
 * renameat2() with RENAME_NOREPLACE, which neither NFS nor many servers of FUSE know: a link
 * replaces nothing either, but who has it open has it under the old name then (moves: he shall
 * not). Without a link a file that is made by others meanwhile is replaced. Returns 0 or a negative
 * errno
 * (-EEXIST).
 */
int nfs_rename_new(int old_dir, const char *old, int new_dir, const char *new, bool moves);

#endif
