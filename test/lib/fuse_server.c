/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuse_server DIRECTORY: mounts a file system of its own there, with one file, "counter", whose
 * contents are how often it was read.
 */
#include "fuse_calls.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int reads;

static void serve(const struct fuse_in_header *in, const void *arg)
{
	struct fuse_init_out init = FUSE_INIT_OUT;
	struct fuse_attr_out attr = {.attr = fuse_attributes(in->nodeid, 0444)};
	struct fuse_entry_out entry = {.nodeid = 2, .attr = fuse_attributes(2, 0444)};
	struct fuse_open_out open = {.open_flags = FOPEN_DIRECT_IO};
	const struct fuse_read_in *read = arg;
	char text[16];

	switch (in->opcode) {
	case FUSE_INIT:
		return fuse_reply(in, 0, &init, sizeof(init));
	case FUSE_GETATTR:
		return fuse_reply(in, 0, &attr, sizeof(attr));
	case FUSE_LOOKUP:
		return strcmp(arg, "counter") ? fuse_reply(in, -ENOENT, NULL, 0)
					      : fuse_reply(in, 0, &entry, sizeof(entry));
	case FUSE_OPEN:
		return fuse_reply(in, 0, &open, sizeof(open));
	case FUSE_READ:
		snprintf(text, sizeof(text), "%d", read->offset ? 0 : ++reads);
		return fuse_reply(in, 0, text, read->offset ? 0 : strlen(text));
	case FUSE_RELEASE:
		return fuse_reply(in, 0, NULL, 0);
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		return;
	default:
		return fuse_reply(in, -ENOSYS, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	static char request[1 << 16] __attribute__((aligned(8)));

	CHECK_EQUAL(argc, 2);
	test_init();
	fuse = open("/dev/fuse", O_RDWR | O_NONBLOCK);
	CHECK(fuse >= 0);
	CHECK(!fuse_mount("counter", argv[1]));
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
