/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts that cannot be made again. */
#include "ns/mounts_refuse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>

#include "core/cleanup.h"

/* A bpffs lasts as long as its mounts, and so do maps and programs that have a name there only. The
 * first two names are made by the kernel (CONFIG_BPF_PRELOAD). */
int mounts_check_pinned(int at, struct error *e)
{
	int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(close_directory) DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct statfs fs;
	int ended = 0;

	if (!d || fstatfs(dirfd(d), &fs) < 0 || fs.f_type != BPF_FS_MAGIC)
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "what is pinned in this file system (bpf) cannot be looked at");
	while ((entry = next_entry(d, &ended)))
		if (*entry->d_name != '.' && strcmp(entry->d_name, "maps.debug") &&
		    strcmp(entry->d_name, "progs.debug"))
			return error_set(
				e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				"what is pinned in it (%s, of BPF) would be lost; remove it first",
				entry->d_name);
	return ended < 0 ? error_errno(e, ended, E_CONTAINER_MOUNT,
				       "what is pinned in this file system (bpf) cannot be read")
			 : 0;
}

bool mounts_is_terminal(const struct mount_line *m)
{
	return !strcmp(m->type, "devpts") && strcmp(m->root, "/") && strcmp(m->root, "/ptmx");
}

int mounts_check_terminal(const struct mount_line *m, struct error *e)
{
	if (mounts_is_terminal(m))
		return error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "it shows a terminal of the container, which is not there when "
				 "mounts are made (left out with --allow-leak file)");
	return 0;
}

/* As the kernel tells it (dentry_path()). Programs make containers so (systemd-nspawn). */
int mounts_check_line(const struct mount_line *m, struct error *e)
{
	static const char end[] = "//deleted";
	const size_t n = strlen(m->root), len = sizeof(end) - 1;
	int r;

	if (n < len || strcmp(m->root + n - len, end))
		return 0;
	r = mounts_check_terminal(m, e);
	return r < 0 ? r
		     : error_set(e, -EOPNOTSUPP, E_CONTAINER_MOUNT,
				 "it shows a file that has been removed (%s), which is not there "
				 "when mounts are made",
				 m->root);
}
