/* SPDX-License-Identifier: Apache-2.0 */
#include "core/nfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SILLY_PREFIX ".nfs"
#define SILLY_DIGITS 24 /* the number of the file, and a counter */

bool nfs_is_removed(int fd, const char *path)
{
	const char *slash = strrchr(path, '/'), *digits;
	struct statfs fs;

	if (!slash || strncmp(slash + 1, SILLY_PREFIX, strlen(SILLY_PREFIX)) != 0)
		return false;
	digits = slash + 1 + strlen(SILLY_PREFIX);
	return strlen(digits) == SILLY_DIGITS &&
	       strspn(digits, "0123456789abcdef") == SILLY_DIGITS && fstatfs(fd, &fs) == 0 &&
	       fs.f_type == NFS_SUPER_MAGIC;
}

int nfs_rename_new(int old_dir, const char *old, int new_dir, const char *new, bool moves)
{
	struct stat st;

	if (renameat2(old_dir, old, new_dir, new, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
		return -errno;
	if (!moves && linkat(old_dir, old, new_dir, new, 0) == 0)
		return unlinkat(old_dir, old, 0) < 0 ? -errno : 0;
	if (!moves && errno != EPERM && errno != ENOSYS && errno != EOPNOTSUPP)
		return -errno;
	if (fstatat(new_dir, new, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return renameat(old_dir, old, new_dir, new) < 0 ? -errno : 0;
}
