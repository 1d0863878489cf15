/* SPDX-License-Identifier: Apache-2.0 */
/* Regular files: position, access mode, flags, what dup and open twice mean. */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE 10000

static const struct {
	const char *name;
	int flags;
	off_t position;
} files[] = {
	{"data", O_RDONLY, 0},
	{"data", O_RDONLY, 1234},
	{"data", O_RDWR, SIZE},
	{"data", O_WRONLY, SIZE * 1000L},
	{"data", O_WRONLY | O_APPEND, 5},
	{"data", O_RDWR | O_NONBLOCK | O_SYNC, 77},
	{"data", O_RDWR | O_DSYNC | O_NOATIME | O_CLOEXEC, 78},
	{"data", O_RDONLY | O_DIRECT, 512},
	{"data", O_RDONLY | O_NOFOLLOW | O_LARGEFILE, 79},
	{"data", O_PATH, 0},
	{"link", O_PATH | O_NOFOLLOW, 0},
	{"link", O_RDONLY, 80},
	{".", O_PATH | O_DIRECTORY, 0},
	{"read-only", O_RDONLY, 81},
	{"name with\nnewline and \xff", O_RDWR, 82},
	{"empty", O_WRONLY | O_TRUNC, 0},
};
#define COUNT (int)(sizeof(files) / sizeof(files[0]))

int main(void)
{
	int fds[COUNT], flags[COUNT], cloexec[COUNT], twice[2];
	char buffer[16], expected[16], *data;
	struct stat before[COUNT], now;

	test_init();
	close(test_file("data", SIZE, 1));
	close(test_file("read-only", SIZE, 2));
	close(test_file("empty", 0, 0));
	close(test_file("name with\nnewline and \xff", SIZE, 4));
	CHECK(!chmod("read-only", 0400));
	CHECK(!symlink("data", "link"));
	for (int i = 0; i < COUNT; i++) {
		fds[i] = open(files[i].name, files[i].flags);
		CHECKF(fds[i] >= 0, "open %s with %o: %s", files[i].name, files[i].flags,
		       strerror(errno));
		if (!(files[i].flags & O_PATH))
			CHECK_EQUAL(lseek(fds[i], files[i].position, SEEK_SET), files[i].position);
		flags[i] = fcntl(fds[i], F_GETFL);
		cloexec[i] = fcntl(fds[i], F_GETFD);
		CHECK(!fstat(fds[i], &before[i]));
	}
	twice[0] = dup(fds[1]);
	twice[1] = fcntl(fds[1], F_DUPFD_CLOEXEC, 60);
	CHECK(twice[0] >= 0 && twice[1] >= 60);

	test_wait();
	if (test_break(1))
		lseek(twice[1], 5, SEEK_SET);
	if (test_break(2))
		fcntl(fds[4], F_SETFL, 0);
	if (test_break(3))
		fcntl(twice[1], F_SETFD, 0);
	for (int i = 0; i < COUNT; i++) {
		CHECKF(fcntl(fds[i], F_GETFL) == flags[i], "%s, %o: flags are %o, were %o",
		       files[i].name, files[i].flags, fcntl(fds[i], F_GETFL), flags[i]);
		CHECK_EQUAL(fcntl(fds[i], F_GETFD), cloexec[i]);
		if (!(files[i].flags & O_PATH))
			CHECK_EQUAL(lseek(fds[i], 0, SEEK_CUR), files[i].position);
		else
			CHECK(read(fds[i], buffer, 1) < 0 && errno == EBADF);
		CHECK(!fstat(fds[i], &now));
		CHECK(now.st_ino == before[i].st_ino && now.st_dev == before[i].st_dev);
	}
	CHECK_EQUAL(lseek(twice[0], 0, SEEK_CUR), 1234);
	CHECK_EQUAL(fcntl(twice[1], F_GETFD), FD_CLOEXEC);
	data = malloc(SIZE);
	test_fill(data, SIZE, 1);
	memcpy(expected, data + 1234, 16);
	CHECK_EQUAL(read(fds[1], buffer, 16), 16);
	CHECK(!memcmp(buffer, expected, 16));
	/* One description for three descriptors, and another for the rest. */
	CHECK_EQUAL(lseek(twice[0], 0, SEEK_CUR), 1250);
	CHECK_EQUAL(lseek(twice[1], 0, SEEK_CUR), 1250);
	CHECK_EQUAL(lseek(fds[0], 0, SEEK_CUR), 0);
	/* And it appends still. */
	CHECK_EQUAL(write(fds[4], "end", 3), 3);
	CHECK(lseek(fds[4], 0, SEEK_CUR) >= SIZE + 3);
	CHECK(read(fds[3], buffer, 1) < 0 && errno == EBADF);
	CHECK(write(fds[1], buffer, 1) < 0 && errno == EBADF);
	test_pass();
}
