/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that were opened through a bind mount and by their own path, of a file bound over another,
 * and a working directory below a mount.
 *
 * not-in: user: an ordinary user mounts nothing
 */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static void check_link(int fd, const char *end)
{
	char path[64], link[600];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	CHECK(n > 0);
	link[n] = 0;
	CHECKF(n > (ssize_t)strlen(end) && !strcmp(link + n - strlen(end), end), "it is %s", link);
}

int main(void)
{
	int by_name, bound, directory, over, removed;
	char data[100], cwd[600];
	struct stat one, other;

	test_init();
	CHECK(!mkdir("real", 0700) && !mkdir("bound", 0700) && !mkdir("real/below", 0700));
	close(test_file("real/file", 100, 1));
	close(test_file("target", 10, 2));
	if (mount("real", "bound", NULL, MS_BIND, NULL))
		test_skip("no mounts here: %s", strerror(errno));
	CHECK(!mount("real/file", "target", NULL, MS_BIND, NULL));
	by_name = open("real/file", O_RDWR);
	bound = open("bound/file", O_RDONLY);
	over = open("target", O_RDONLY);
	directory = open("bound", O_RDONLY | O_DIRECTORY);
	removed = test_file("bound/removed", 100, 3);
	CHECK(!unlink("real/removed"));
	CHECK(by_name >= 0 && bound >= 0 && over >= 0 && directory >= 0);
	CHECK(!chdir("bound/below"));

	test_wait();
	if (test_break(1))
		bound = dup(by_name);
	check_link(by_name, "/real/file");
	check_link(bound, "/bound/file");
	check_link(over, "/target");
	check_link(directory, "/bound");
	check_link(removed, "/bound/removed (deleted)");
	CHECK(!fstat(by_name, &one) && !fstat(bound, &other) && one.st_ino == other.st_ino);
	CHECK(!fstat(over, &other) && one.st_ino == other.st_ino);
	CHECK_EQUAL(pread(removed, data, 100, 0), 100);
	CHECK_FILLED(data, 100, 3);
	CHECK(!faccessat(directory, "file", R_OK, 0));
	CHECK(getcwd(cwd, sizeof(cwd)) && strstr(cwd, "/bound/below"));
	test_pass();
}
