/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of a file system in memory that is mounted nowhere. No mountinfo shows them any more
 * (shmem_show_options(), ramfs_show_options()), the kernel's memory does.
 */
#include <errno.h>
#include <stdio.h>

#include "core/kernel_memory.h"
#include "ns/mounts_detached.h"

/* Not every kernel has all of them. Numbers are little endian. */
static int number(struct kernel_memory *k, uint64_t address, const char *structure,
		  const char *member, size_t size, unsigned long long *ret)
{
	uint64_t is = 0;
	int r = kernel_member(k, address, structure, member, &is, size);

	*ret = is;
	return r == -ENOENT ? 0 : r;
}

struct tmpfs {
	unsigned long long mode, uid, gid, huge, inode64, noswap; /* as options */
	unsigned long long policy, quota, encoding;
};

static int read_tmpfs(struct kernel_memory *k, uint64_t super, uint64_t info, struct tmpfs *ret)
{
	static const char own[] = "shmem_sb_info", all[] = "super_block";
	const struct {
		const char *structure, *member;
		unsigned long long *ret;
		size_t size;
	} list[] = {
		{own, "mode", &ret->mode, 2},
		{own, "uid", &ret->uid, 4},
		{own, "gid", &ret->gid, 4},
		{own, "huge", &ret->huge, 1},
		{own, "full_inums", &ret->inode64, 1},
		{own, "noswap", &ret->noswap, 1},
		{own, "mpol", &ret->policy, 8},
		{all, "s_quota_types", &ret->quota, 4},
		{all, "s_encoding", &ret->encoding, 8},
	};
	int r = 0;

	for (size_t i = 0; i < sizeof(list) / sizeof(*list) && r >= 0; i++)
		r = number(k, list[i].structure == own ? info : super, list[i].structure,
			   list[i].member, list[i].size, list[i].ret);
	return r;
}

/* Those of size are told by statfs(). */
int mounts_tmpfs_options(struct kernel_memory *k, uint64_t super, bool initial,
			 const struct statfs *fs, char *buf, size_t size)
{
	static const char *const huge[] = {"never", "always", "within_size", "advise"};
	struct tmpfs t = {};
	uint64_t info = 0;
	int r = kernel_member(k, super, "super_block", "s_fs_info", &info, sizeof(info)), len;

	if (r >= 0)
		r = read_tmpfs(k, super, info, &t);
	if (r < 0 || t.policy || t.quota || t.encoding || t.huge >= sizeof(huge) / sizeof(*huge))
		return -EOPNOTSUPP;
	len = snprintf(buf, size, "size=%llu,nr_inodes=%llu,mode=%03llo,inode%d%s",
		       (unsigned long long)fs->f_blocks * (unsigned long long)fs->f_bsize,
		       (unsigned long long)fs->f_files, t.mode, t.inode64 ? 64 : 32,
		       t.noswap ? ",noswap" : "");
	if (t.huge)
		len += snprintf(buf + len, size - (size_t)len, ",huge=%s", huge[t.huge]);
	/* Whoever is in another user namespace has other numbers for them. */
	if (initial && (t.uid || t.gid))
		snprintf(buf + len, size - (size_t)len, ",uid=%llu,gid=%llu", t.uid, t.gid);
	return 0;
}

int mounts_ramfs_options(struct kernel_memory *k, uint64_t super, char *buf, size_t size)
{
	unsigned long long mode;
	uint64_t info = 0;
	int r = kernel_member(k, super, "super_block", "s_fs_info", &info, sizeof(info));

	if (r >= 0)
		r = number(k, info, "ramfs_fs_info", "mount_opts.mode", 2, &mode);
	if (r >= 0 && mode)
		snprintf(buf, size, "mode=%03llo", mode);
	return r;
}
