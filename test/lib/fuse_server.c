/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuse_server DIRECTORY: mounts a file system of its own there, with one file, "counter", whose
 * contents are how often it was read.
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int fuse, reads;

static void reply(const struct fuse_in_header *to, int error, const void *data, size_t n)
{
	struct fuse_out_header head = {(uint32_t)(sizeof(head) + n), error, to->unique};
	struct iovec parts[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)data, n}};

	/* ENOENT: whoever asked has gone. */
	CHECK(writev(fuse, parts, 2) > 0 || errno == ENOENT);
}

static struct fuse_attr attributes(uint64_t node)
{
	return (struct fuse_attr){.ino = node,
				  .mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0444,
				  .nlink = 1,
				  .size = node == 1 ? 0 : 4096};
}

static void serve(const struct fuse_in_header *in, const void *arg)
{
	struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 4096};
	struct fuse_attr_out attr = {.attr = attributes(in->nodeid)};
	struct fuse_entry_out entry = {.nodeid = 2, .attr = attributes(2)};
	struct fuse_open_out open = {.open_flags = FOPEN_DIRECT_IO};
	const struct fuse_read_in *read = arg;
	char text[16];

	switch (in->opcode) {
	case FUSE_INIT:
		return reply(in, 0, &init, sizeof(init));
	case FUSE_GETATTR:
		return reply(in, 0, &attr, sizeof(attr));
	case FUSE_LOOKUP:
		return strcmp(arg, "counter") ? reply(in, -ENOENT, NULL, 0)
					      : reply(in, 0, &entry, sizeof(entry));
	case FUSE_OPEN:
		return reply(in, 0, &open, sizeof(open));
	case FUSE_READ:
		snprintf(text, sizeof(text), "%d", read->offset ? 0 : ++reads);
		return reply(in, 0, text, read->offset ? 0 : strlen(text));
	case FUSE_RELEASE:
		return reply(in, 0, NULL, 0);
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		return;
	default:
		return reply(in, -ENOSYS, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	static char request[1 << 16] __attribute__((aligned(8)));
	char options[100];

	CHECK_EQUAL(argc, 2);
	test_init();
	fuse = open("/dev/fuse", O_RDWR | O_NONBLOCK);
	CHECK(fuse >= 0);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	CHECK(!mount("counter", argv[1], "fuse", MS_NOSUID | MS_NODEV, options));
	test_ready();
	while (!test_going()) {
		struct pollfd p = {.fd = fuse, .events = POLLIN};

		if (poll(&p, 1, 20) > 0 && read(fuse, request, sizeof(request)) > 0)
			serve((const struct fuse_in_header *)(void *)request,
			      request + sizeof(struct fuse_in_header));
	}
	CHECK_EQUAL(reads, 2);
	test_pass();
}
