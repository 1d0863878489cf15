/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removed in less usual ways: directories with what was in them, several files of one name, a hard
 * link left, made without a name, renamed over, a fifo; and a working directory that is gone.
 */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SIZE 9000

static char data[SIZE];

static void check_contents(int fd, uint64_t seed)
{
	CHECK_EQUAL(pread(fd, data, SIZE, 0), SIZE);
	CHECK_FILLED(data, SIZE, seed);
}

static void check_link(const char *name, const char *end)
{
	char link[600];
	ssize_t n = readlink(name, link, sizeof(link) - 1);

	CHECK(n > 0);
	link[n] = 0;
	CHECKF(n >= (ssize_t)strlen(end) && !strcmp(link + n - strlen(end), end),
	       "the name of %s is %s, and should end with %s", name, link, end);
}

static void check_fd_link(int fd, const char *end)
{
	char name[32];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	check_link(name, end);
}

static ino_t inode(int at, const char *name)
{
	struct stat st;

	CHECK(!fstatat(at, name, &st, 0));
	return st.st_ino;
}

static int outer, inner, in_inner, in_gone, read_only_dir, twice[2], over, rest, linked, unnamed,
	named_later, fifo;
static char *mapped;
static bool with_attribute;

static void set_up(void)
{
	CHECK(!mkdir("outer", 0751) && !mkdir("outer/inner", 0700) && !mkdir("gone", 0700));
	in_inner = test_file("outer/inner/file", SIZE, 1);
	in_gone = test_file("gone/file", SIZE, 2);
	outer = open("outer", O_RDONLY | O_DIRECTORY);
	inner = open("outer/inner", O_PATH | O_DIRECTORY);
	CHECK(!unlink("outer/inner/file") && !unlink("gone/file") && !rmdir("gone"));
	CHECK(!mkdir("closed", 0500));
	read_only_dir = open("closed", O_RDONLY | O_DIRECTORY);
	CHECK(!rmdir("closed"));

	/* Where the file system knows such things. */
	with_attribute = !fsetxattr(in_inner, "user.colour", "blue", 4, 0);
	(void)!fsetxattr(outer, "trusted.shape", "round", 5, 0);
	for (int i = 0; i < 2; i++) {
		twice[i] = test_file("twice", SIZE, 3 + i);
		CHECK(!unlink("twice"));
	}
	over = test_file("over", SIZE, 5);
	close(test_file("new", SIZE, 6));
	CHECK(!rename("new", "over"));
	linked = test_file("first", SIZE, 7);
	CHECK(!link("first", "second") && !unlink("first"));
	rest = test_file("mapped", SIZE, 8);
	mapped = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, rest, 0);
	CHECK(mapped != MAP_FAILED && !unlink("mapped"));
	unnamed = open(".", O_TMPFILE | O_RDWR, 0640);
	named_later = open(".", O_TMPFILE | O_RDWR, 0640);
	CHECK(unnamed >= 0 && named_later >= 0);
	test_fill(data, SIZE, 9);
	CHECK_EQUAL(write(unnamed, data, SIZE), SIZE);
	snprintf(data, sizeof(data), "/proc/self/fd/%d", named_later);
	CHECK(!linkat(AT_FDCWD, data, AT_FDCWD, "later", AT_SYMLINK_FOLLOW));
	CHECK(!mkfifo("fifo", 0600));
	fifo = open("fifo", O_RDWR);
	CHECK_EQUAL(write(fifo, "fifo", 4), 4);
	CHECK(!unlink("fifo"));
	/* The working directory, and the one above it. */
	CHECK(!chdir("outer/inner"));
	CHECK(!rmdir("../inner") && !rmdir("../../outer"));
}

static void check_directories(void)
{
	struct stat st;

	CHECK(open("file", O_CREAT | O_RDWR, 0600) < 0 && errno == ENOENT);
	CHECK_EQUAL(inode(AT_FDCWD, "."), inode(inner, "."));
	CHECK_EQUAL(inode(AT_FDCWD, ".."), inode(outer, "."));
	CHECK(!fstat(outer, &st));
	CHECK_EQUAL(st.st_mode, S_IFDIR | 0751);
	CHECK(!fstat(read_only_dir, &st));
	CHECK_EQUAL(st.st_mode, S_IFDIR | 0500);
	CHECK(openat(read_only_dir, "file", O_CREAT | O_RDWR, 0600) < 0);
	check_link("/proc/self/cwd", "/outer/inner (deleted)");
	check_fd_link(outer, "/outer (deleted)");
	check_fd_link(in_inner, "/outer/inner/file (deleted)");
	check_fd_link(in_gone, "/gone/file (deleted)");
	CHECK(!chdir(test_dir()));
	CHECK(access("outer", F_OK) < 0 && access("gone", F_OK) < 0 && access("closed", F_OK) < 0);
}

int main(void)
{
	struct stat st, other;
	char path[64], buffer[8];

	test_init();
	set_up();

	test_wait();
	if (test_break(1))
		CHECK_EQUAL(pwrite(twice[0], "y", 1, 5), 1);
	if (test_break(2))
		CHECK(!chdir(test_dir()));
	check_directories();
	if (with_attribute)
		CHECK(fgetxattr(in_inner, "user.colour", data, 8) == 4 && !memcmp(data, "blue", 4));
	if (with_attribute && getuid() == 0)
		CHECK_EQUAL(fgetxattr(outer, "trusted.shape", data, 8), 5);
	check_contents(in_inner, 1);
	check_contents(in_gone, 2);
	check_contents(twice[0], 3);
	check_contents(twice[1], 4);
	check_contents(over, 5);
	check_contents(linked, 7);
	CHECK(!fstat(linked, &st) && !stat("second", &other));
	CHECK(st.st_ino == other.st_ino && st.st_nlink == 1);
	CHECK_FILLED(mapped, SIZE, 8);
	mapped[5] = 'm';
	CHECK(pread(rest, buffer, 1, 5) == 1 && buffer[0] == 'm');
	check_contents(unnamed, 9);
	CHECK(!fstat(named_later, &st) && !stat("later", &other) && st.st_ino == other.st_ino);
	CHECK_EQUAL(read(fifo, buffer, 8), 4);
	CHECK(!fstat(fifo, &st) && st.st_nlink == 0);
	/* What was made without a name can have one. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", unnamed);
	snprintf(data, sizeof(data), "%s/%d-%f", test_dir(), getpid(), test_now());
	CHECK(!linkat(AT_FDCWD, path, AT_FDCWD, data, AT_SYMLINK_FOLLOW));
	CHECK(!stat(data, &other) && other.st_size == SIZE);
	CHECK(!unlink(data));
	test_pass();
}
