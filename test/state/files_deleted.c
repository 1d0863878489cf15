/* SPDX-License-Identifier: Apache-2.0 */
/* Files that were deleted while open: contents, position, sharing, links, attributes. */
#include "harness.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE 70000

int main(void)
{
	int fd, again, read_only, replaced, linked, sparse, temporary, reserved, null, log;
	int flags = 0, flags_now = 0;
	char path[64], link[500], *data = malloc(SIZE);
	struct stat before, now, room = {};
	ssize_t n;

	test_init();
	fd = test_file("deleted", SIZE, 1);
	again = dup(fd);
	read_only = open("deleted", O_RDONLY | O_CLOEXEC);
	lseek(fd, 4321, SEEK_SET);
	lseek(read_only, 77, SEEK_SET);
	CHECK(!fchmod(fd, 0612));
	CHECK(!unlink("deleted"));
	replaced = test_file("replaced", SIZE, 2);
	CHECK(!unlink("replaced"));
	null = test_file("replaced", 100, 3);
	CHECK(null >= 0);
	close(null);
	/* One that has another name still. */
	linked = test_file("linked", SIZE, 4);
	CHECK(!rename("linked", "other name"));
	sparse = test_file("sparse", 10, 5);
	CHECK(!ftruncate(sparse, 1L << 33));
	CHECK_EQUAL(pwrite(sparse, "x", 1, 1L << 32), 1);
	CHECK(!unlink("sparse"));
	/* A log that was removed: nobody but root can read it. */
	log = open("log", O_WRONLY | O_APPEND | O_CREAT, geteuid() ? 0600 : 0200);
	CHECK(log >= 0 && write(log, "first", 5) == 5 && !unlink("log"));
	temporary = open(".", O_TMPFILE | O_RDWR, 0600);
	if (temporary >= 0)
		CHECK_EQUAL(write(temporary, "temporary", 9), 9);
	CHECK(!fstat(fd, &before));
	reserved = test_file("reserved", 10, 6);
	if (!fallocate(reserved, 0, 0, 1 << 18))
		CHECK(!fstat(reserved, &room));
	CHECK(!unlink("reserved"));
	if (!ioctl(reserved, FS_IOC_GETFLAGS, &flags)) {
		int more = flags | FS_NODUMP_FL | (geteuid() ? 0 : FS_APPEND_FL | FS_IMMUTABLE_FL);

		flags = ioctl(reserved, FS_IOC_SETFLAGS, &more) < 0 ? flags : more;
	}

	test_wait();
	if (test_break(1))
		CHECK_EQUAL(pwrite(fd, "y", 1, 5), 1);
	if (test_break(2))
		lseek(again, 1, SEEK_CUR);
	CHECK_EQUAL(pread(read_only, data, SIZE, 0), SIZE);
	CHECK_FILLED(data, SIZE, 1);
	CHECK_EQUAL(lseek(again, 0, SEEK_CUR), 4321);
	CHECK_EQUAL(lseek(read_only, 0, SEEK_CUR), 77);
	CHECK_EQUAL(fcntl(read_only, F_GETFL) & O_ACCMODE, O_RDONLY);
	CHECK_EQUAL(fcntl(read_only, F_GETFD), FD_CLOEXEC);
	CHECK(!fstat(fd, &now));
	CHECK_EQUAL(now.st_mode, before.st_mode);
	CHECK_EQUAL(now.st_size, SIZE);
	CHECK_EQUAL(now.st_nlink, 0);
	CHECK_EQUAL(now.st_uid, before.st_uid);
	/* Both descriptors still name one file. */
	CHECK_EQUAL(pwrite(fd, "z", 1, 0), 1);
	CHECK_EQUAL(pread(read_only, data, 1, 0), 1);
	CHECK_EQUAL(data[0], 'z');
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	CHECK(n > 0);
	link[n] = 0;
	CHECKF(strstr(link, "/deleted (deleted)"), "its name is %s", link);
	CHECK_EQUAL(pread(replaced, data, SIZE, 0), SIZE);
	CHECK_FILLED(data, SIZE, 2);
	CHECK(!stat("replaced", &now) && now.st_size == 100);
	CHECK_EQUAL(pread(linked, data, SIZE, 0), SIZE);
	CHECK_FILLED(data, SIZE, 4);
	CHECK(!fstat(linked, &now) && now.st_nlink == 1);
	CHECK(!fstat(sparse, &now));
	CHECK_EQUAL(now.st_size, 1L << 33);
	CHECKF(now.st_blocks < 1000, "a sparse file now has %ld blocks", (long)now.st_blocks);
	CHECK(pread(sparse, data, 1, 1L << 32) == 1 && data[0] == 'x');
	CHECK(!fstat(reserved, &now) && pread(reserved, data, 10, 0) == 10);
	CHECK_FILLED(data, 10, 6);
	ioctl(reserved, FS_IOC_GETFLAGS, &flags_now);
	CHECK_EQUAL(flags_now & ~FS_EXTENT_FL, flags & ~FS_EXTENT_FL);
	CHECK(!room.st_size || (now.st_size == 1 << 18 && now.st_blocks >= (1 << 18) / 512));
	if (temporary >= 0) {
		CHECK_EQUAL(lseek(temporary, 0, SEEK_CUR), 9);
		CHECK(pread(temporary, data, 9, 0) == 9 && !memcmp(data, "temporary", 9));
	}
	CHECK_EQUAL(fcntl(log, F_GETFL) & (O_ACCMODE | O_APPEND), O_WRONLY | O_APPEND);
	CHECK_EQUAL(write(log, "second", 6), 6);
	CHECK(!fchmod(log, 0600));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", log);
	CHECK_EQUAL(read(open(path, O_RDONLY), data, SIZE), 11);
	CHECK(!memcmp(data, "firstsecond", 11));
	CHECK(access("deleted", F_OK) < 0 && access("sparse", F_OK) < 0);
	test_pass();
}
