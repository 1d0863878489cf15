/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unwritten DIRECTORY: a file on a file system that takes nothing that is written. One description
 * has been told so by msync(), the other, which we keep, not yet. The server is nobody's child, and
 * ends when the file system is unmounted.
 */
#include "fuse_calls.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static void serve(const struct fuse_in_header *in)
{
	static const char zeros[4096];
	struct fuse_init_out init = FUSE_INIT_OUT;
	struct fuse_attr_out attr = {.attr = fuse_attributes(in->nodeid, 0644)};
	struct fuse_entry_out entry = {.nodeid = 2, .attr = fuse_attributes(2, 0644)};
	struct fuse_open_out open = {.open_flags = 0};

	switch (in->opcode) {
	case FUSE_INIT:
		return fuse_reply(in, 0, &init, sizeof(init));
	case FUSE_GETATTR:
		return fuse_reply(in, 0, &attr, sizeof(attr));
	case FUSE_LOOKUP:
		return fuse_reply(in, 0, &entry, sizeof(entry));
	case FUSE_OPEN:
		return fuse_reply(in, 0, &open, sizeof(open));
	case FUSE_READ:
		return fuse_reply(in, 0, zeros, sizeof(zeros));
	case FUSE_WRITE:
		return fuse_reply(in, -EIO, NULL, 0);
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

static _Noreturn void run_server(void)
{
	static char request[1 << 16] __attribute__((aligned(8)));

	/* ENODEV: nobody has it mounted any more. */
	while (read(fuse, request, sizeof(request)) > 0 || errno == EINTR || errno == ENOENT)
		serve((const struct fuse_in_header *)(void *)request);
	_exit(0);
}

static int start_server(void *arg)
{
	if (fork() == 0)
		run_server();
	return 0;
}

int main(int argc, char **argv)
{
	char path[100];
	int told, untold;
	char *map;

	CHECK_EQUAL(argc, 2);
	test_init();
	fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fuse < 0)
		test_skip("no FUSE here");
	snprintf(path, sizeof(path), "%s/file", argv[1]);
	if (fuse_mount("lossy", argv[1]))
		test_skip("no FUSE here (errno %d)", errno);
	test_reap(test_fork(start_server, NULL), 0);
	close(fuse);
	told = open(path, O_RDWR | O_CLOEXEC);
	untold = open(path, O_RDWR | O_CLOEXEC);
	CHECK(told >= 0 && untold >= 0);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, told, 0);
	CHECK(map != MAP_FAILED);
	map[0] = 'x';
	CHECK(msync(map, 4096, MS_SYNC) < 0 && errno == EIO);
	CHECK(!munmap(map, 4096) && !close(told));

	test_wait();
	CHECK(fsync(untold) < 0 && errno == EIO);
	CHECK(!fsync(untold));
	test_pass();
}
