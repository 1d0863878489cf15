/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_LIB_FUSE_CALLS_H
#define TEST_LIB_FUSE_CALLS_H

/* Small servers of file systems (fuse(4)): a directory, which is node 1, and files of a page. */

#include "harness.h"

#include <linux/fuse.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FUSE_INIT_OUT                                      \
	{                                                  \
		.major = 7, .minor = 31, .max_write = 4096 \
	}

static int fuse;

static inline void fuse_reply(const struct fuse_in_header *to, int error, const void *data,
			      size_t n)
{
	struct fuse_out_header head = {(uint32_t)(sizeof(head) + n), error, to->unique};
	struct iovec parts[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)data, n}};

	/* ENOENT: whoever asked has gone. */
	CHECK(writev(fuse, parts, 2) > 0 || errno == ENOENT);
}

static inline struct fuse_attr fuse_attributes(uint64_t node, uint32_t mode)
{
	return (struct fuse_attr){.ino = node,
				  .mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | mode,
				  .nlink = 1,
				  .size = node == 1 ? 0 : 4096};
}

/* With the server's end open: a mount(2) result. */
static inline int fuse_mount(const char *name, const char *where)
{
	char options[100];

	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	return mount(name, where, "fuse", MS_NOSUID | MS_NODEV, options);
}

#endif
