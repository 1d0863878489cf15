/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unwritten DIRECTORY: a file on a file system that takes nothing that is written. One description
 * has been told so by msync(), the other, which we keep, not yet. The server is nobody's child, and
 * ends when the file system is unmounted.
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int fuse;

static void reply(const struct fuse_in_header *to, int error, const void *data, size_t n)
{
	struct fuse_out_header head = {(uint32_t)(sizeof(head) + n), error, to->unique};
	struct iovec parts[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)data, n}};

	CHECK(writev(fuse, parts, 2) > 0 || errno == ENOENT);
}

static struct fuse_attr attributes(uint64_t node)
{
	return (struct fuse_attr){.ino = node,
				  .mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644,
				  .nlink = 1,
				  .size = node == 1 ? 0 : 4096};
}

static void serve(const struct fuse_in_header *in)
{
	static const char zeros[4096];
	struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 4096};
	struct fuse_attr_out attr = {.attr = attributes(in->nodeid)};
	struct fuse_entry_out entry = {.nodeid = 2, .attr = attributes(2)};
	struct fuse_open_out open = {.open_flags = 0};

	switch (in->opcode) {
	case FUSE_INIT:
		return reply(in, 0, &init, sizeof(init));
	case FUSE_GETATTR:
		return reply(in, 0, &attr, sizeof(attr));
	case FUSE_LOOKUP:
		return reply(in, 0, &entry, sizeof(entry));
	case FUSE_OPEN:
		return reply(in, 0, &open, sizeof(open));
	case FUSE_READ:
		return reply(in, 0, zeros, sizeof(zeros));
	case FUSE_WRITE:
		return reply(in, -EIO, NULL, 0);
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
	char options[100], path[100];
	int told, untold;
	char *map;

	CHECK_EQUAL(argc, 2);
	test_init();
	fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fuse < 0)
		test_skip("no FUSE here");
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	snprintf(path, sizeof(path), "%s/file", argv[1]);
	if (mount("lossy", argv[1], "fuse", MS_NOSUID | MS_NODEV, options))
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
