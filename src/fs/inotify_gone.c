/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pipes that are watched and nobody has open any more. Nothing happens to them, and no name leads
 * there: one is as good as another. Such stand for what had gone before an earlier restart, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/inotify_events.h"

#define WATCHES_MAX (1 << 20)

dev_t inotify_device_of_pipes(void)
{
	struct stat st = {};
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return 0;
	r = fstat(ends[0], &st);
	close(ends[0]);
	close(ends[1]);
	return r < 0 ? 0 : st.st_dev;
}

/* Before 6.10 a connector pointed to where the inode points to it. */
static int inode_of(struct kernel_memory *k, uint64_t mark, uint64_t ino, uint64_t *ret)
{
	const int back = kernel_offset(k, "inode", "i_fsnotify_marks");
	uint64_t connector, at, is;
	int r = kernel_member(k, mark, "fsnotify_mark", "connector", &connector, sizeof(connector));

	if (r >= 0)
		r = kernel_member(k, connector, "fsnotify_mark_connector", "obj", &at, sizeof(at));
	if (r < 0 || back < 0)
		return r < 0 ? r : back;
	for (int i = 0; i < 2; i++) {
		*ret = at - (i ? (uint64_t)back : 0);
		r = kernel_member(k, *ret, "inode", "i_ino", &is, sizeof(is));
		if (r >= 0 && is == ino)
			return 0;
	}
	return -EOPNOTSUPP;
}

/* The mark of that watch in its group. */
static int find_mark(struct kernel_memory *k, uint64_t group, int wd, uint64_t *ret)
{
	const int list = kernel_offset(k, "fsnotify_group", "marks_list");
	const int node = kernel_offset(k, "fsnotify_mark", "g_list");
	const int mark = kernel_offset(k, "inotify_inode_mark", "fsn_mark");
	uint64_t head = group + (uint64_t)list, at = 0;

	if (list < 0 || node < 0 || mark < 0)
		return -EOPNOTSUPP;
	at = kernel_pointer(k, head);
	for (size_t n = 0; at && at != head && n < WATCHES_MAX; n++) {
		int is, r;

		*ret = at - (uint64_t)node;
		r = kernel_member(k, *ret - (uint64_t)mark, "inotify_inode_mark", "wd", &is,
				  sizeof(is));
		if (r < 0 || is == wd)
			return r;
		at = kernel_pointer(k, at);
	}
	return -ENOENT;
}

/* The last who closes it takes its contents away (put_pipe_info()). */
bool inotify_watches_closed(struct checkpoint *c, int fd, int wd, uint64_t ino)
{
	uint64_t file, group, mark, inode = 0, pipe = 1;
	struct error unused = {};
	struct kernel_memory *k;
	int r;

	if (files_kernel_memory(c, &k, &unused) < 0)
		return false;
	r = kernel_file(k, fd, &file);
	if (r >= 0)
		r = kernel_member(k, file, "file", "private_data", &group, sizeof(group));
	if (r >= 0)
		r = find_mark(k, group, wd, &mark);
	if (r >= 0)
		r = inode_of(k, mark, ino, &inode);
	if (r >= 0)
		r = kernel_member(k, inode, "inode", "i_pipe", &pipe, sizeof(pipe));
	return r >= 0 && !pipe;
}
