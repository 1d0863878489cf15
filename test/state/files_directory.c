/* SPDX-License-Identifier: Apache-2.0 */
/* Open directories, in the middle of being read. */
#include "harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNT 200

int main(void)
{
	char seen[COUNT] = "", buffer[2048], name[32];
	struct dirent *entry;
	int fd, number, all = 0;
	off_t position;
	DIR *directory;
	long n;

	test_init();
	CHECK(!mkdir("directory", 0755));
	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "directory/%d", i);
		test_write(name, name, 5);
	}
	directory = opendir("directory");
	CHECK(directory);
	for (int i = 0; i < 40; i++) {
		entry = readdir(directory);
		CHECK(entry);
		if (sscanf(entry->d_name, "%d", &number) == 1)
			seen[number]++;
	}
	fd = open("directory", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	n = syscall(SYS_getdents64, fd, buffer, sizeof(buffer));
	CHECK(n > 1000);
	position = lseek(fd, 0, SEEK_CUR);
	CHECK(position);
	/* What they hold after that position. */
	while ((n = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0)
		all += n;
	CHECK_EQUAL(lseek(fd, position, SEEK_SET), position);

	test_wait();
	if (test_break(1))
		lseek(fd, 0, SEEK_SET);
	while ((entry = readdir(directory)))
		if (sscanf(entry->d_name, "%d", &number) == 1)
			seen[number]++;
	for (int i = 0; i < COUNT; i++)
		CHECKF(seen[i] == 1, "entry %d was seen %d times", i, seen[i]);
	CHECK_EQUAL(lseek(fd, 0, SEEK_CUR), position);
	while ((n = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0)
		all -= n;
	CHECK_EQUAL(all, 0);
	CHECK_EQUAL(fcntl(fd, F_GETFD), FD_CLOEXEC);
	/* A descriptor of a directory is a place to start from. */
	CHECK(!faccessat(fd, "17", R_OK, 0));
	CHECK(!fchdir(fd));
	CHECK(!access("18", R_OK));
	test_pass();
}
