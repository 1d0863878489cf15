/* SPDX-License-Identifier: Apache-2.0 */
/* What a container has for itself: files that it wrote, mounts, names, settings.
 *
 * not-in: tree,pidns,both,pipe,socket,user,lazy: it would write to the files of the host
 */
#include "harness.h"

#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SIZE (300UL << 10)

static const char *const trees[] = {"/opt/made", "/tmp/made", "/mnt/own/made"};

static char *in(const char *tree, const char *name)
{
	static char path[4][256];
	static int next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", tree, name);
	return p;
}

static void fill(const char *path, uint64_t seed)
{
	char *text = malloc(SIZE);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);

	test_fill(text, SIZE, seed);
	CHECK(fd >= 0 && write(fd, text, SIZE) == (ssize_t)SIZE);
	/* and a hole */
	CHECK(!ftruncate(fd, 3 * SIZE));
	close(fd);
	free(text);
}

static void check_filled(const char *path, uint64_t seed)
{
	char *text = malloc(3 * SIZE);
	int fd = open(path, O_RDONLY);
	struct stat st;

	CHECK(fd >= 0 && read(fd, text, 3 * SIZE) == (ssize_t)(3 * SIZE));
	CHECK_FILLED(text, SIZE, seed);
	for (size_t i = SIZE; i < 3 * SIZE; i++)
		CHECK(!text[i]);
	CHECK(!fstat(fd, &st) && st.st_blocks < (blkcnt_t)(2 * SIZE / 512));
	close(fd);
	free(text);
}

static void make_tree(const char *tree, uint64_t seed)
{
	const struct timespec times[2] = {{1000000, 1}, {123456789, 987654321}};

	CHECK(!mkdir(tree, 0710));
	CHECK(!mkdir(in(tree, "sub"), 01777) && !chmod(in(tree, "sub"), 01777));
	fill(in(tree, "sub/file"), seed);
	CHECK(!chmod(in(tree, "sub/file"), 06751) && !lchown(in(tree, "sub/file"), 12, 34));
	CHECK(!chmod(in(tree, "sub/file"), 06751));
	CHECK(!link(in(tree, "sub/file"), in(tree, "other name")));
	CHECK(!symlink("sub/file", in(tree, "link")) && !lchown(in(tree, "link"), 5, 6));
	CHECK(!mkfifo(in(tree, "fifo"), 0604) && !chmod(in(tree, "fifo"), 0604));
	CHECK(!mknod(in(tree, "null"), S_IFCHR | 0600, 0x103));
	CHECK(!setxattr(in(tree, "sub"), "trusted.test", "v\0lue", 5, 0));
	CHECK(!utimensat(AT_FDCWD, in(tree, "sub/file"), times, 0));
	CHECK(!utimensat(AT_FDCWD, in(tree, "sub"), times, 0));
}

static void check_mode(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
	struct stat st;

	CHECK(!lstat(path, &st));
	CHECKF(st.st_mode == mode, "%s has mode %o", path, st.st_mode);
	CHECKF(st.st_uid == uid && st.st_gid == gid, "%s is of %u %u", path, st.st_uid, st.st_gid);
}

static void check_tree(const char *tree, uint64_t seed)
{
	struct stat st, other;
	char text[64] = "";

	check_mode(tree, S_IFDIR | 0710, 0, 0);
	check_mode(in(tree, "sub"), S_IFDIR | 01777, 0, 0);
	check_mode(in(tree, "sub/file"), S_IFREG | 06751, 12, 34);
	check_mode(in(tree, "link"), S_IFLNK | 0777, 5, 6);
	check_mode(in(tree, "fifo"), S_IFIFO | 0604, 0, 0);
	check_mode(in(tree, "null"), S_IFCHR | 0600, 0, 0);
	CHECK(!stat(in(tree, "sub/file"), &st) && !stat(in(tree, "other name"), &other));
	CHECK(st.st_ino == other.st_ino && st.st_nlink == 2);
	CHECK(st.st_mtim.tv_sec == 123456789 && st.st_mtim.tv_nsec == 987654321);
	CHECK(!stat(in(tree, "sub"), &st) && st.st_mtim.tv_sec == 123456789);
	CHECK(!stat(in(tree, "null"), &st) && st.st_rdev == 0x103);
	CHECK_EQUAL(readlink(in(tree, "link"), text, sizeof(text)), 8);
	CHECK(!strcmp(text, "sub/file"));
	CHECK_EQUAL(getxattr(in(tree, "sub"), "trusted.test", text, sizeof(text)), 5);
	CHECK(!memcmp(text, "v\0lue", 5));
	check_filled(in(tree, "sub/file"), seed);
}

/* Only in a container of our own may the files of the machine be changed. */
static void check_place(void)
{
	char text[64];

	test_read("/proc/1/comm", text, sizeof(text));
	if (strncmp(text, "reprise-init", 12))
		test_skip("not in a container");
}

static short flags_of(const char *name)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq ifr = {};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	CHECK(fd >= 0 && !ioctl(fd, SIOCGIFFLAGS, &ifr));
	close(fd);
	return ifr.ifr_flags;
}

static void set_up(void)
{
	CHECK(!mkdir("/mnt/own", 0755) || errno == EEXIST);
	CHECK(!mount("mine", "/mnt/own", "tmpfs", MS_NOEXEC, "size=8m,mode=0751"));
	for (size_t i = 0; i < 3; i++)
		make_tree(trees[i], i + 1);
	CHECK(!mkdir("/mnt/bound", 0755) && !mkdir("/mnt/own/inner", 0755));
	CHECK(!mount("/tmp/made/sub", "/mnt/bound", NULL, MS_BIND, NULL));
	CHECK(!mount(NULL, "/mnt/bound", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	/* One on top of the other, inside the first. */
	CHECK(!mount("inner", "/mnt/own/inner", "tmpfs", 0, "size=1m"));
	test_write("/mnt/own/inner/file", "inner", 5);
	/* of the host */
	CHECK(!unlink("/etc/passwd"));
	CHECK(!rename("/etc/group", "/etc/group.moved"));
	CHECK(!sethostname("another", 7) && !setdomainname("domain", 6));
	test_write("/proc/sys/kernel/msgmax", "7777", 4);
}

int main(void)
{
	char text[256];
	int open_file, removed;
	struct stat st;

	test_init();
	check_place();
	set_up();
	open_file = open("/opt/made/sub/file", O_RDWR | O_APPEND);
	removed = open("/tmp/removed", O_RDWR | O_CREAT, 0600);
	CHECK(write(removed, "gone", 4) == 4 && !unlink("/tmp/removed"));
	CHECK(open_file >= 0 && !chdir("/tmp/made/sub"));

	test_wait();
	for (size_t i = 0; i < 3; i++)
		check_tree(trees[i], i + 1);
	CHECK(stat("/etc/passwd", &st) < 0 && errno == ENOENT);
	CHECK(stat("/etc/group", &st) < 0 && !stat("/etc/group.moved", &st));
	CHECK(open("/mnt/bound/new", O_WRONLY | O_CREAT, 0600) < 0 && errno == EROFS);
	check_filled("/mnt/bound/file", 2);
	test_read("/mnt/own/inner/file", text, sizeof(text));
	CHECK(!strcmp(text, "inner"));
	CHECK(!stat("/mnt/own", &st) && (st.st_mode & 07777) == 0751);
	CHECK(!gethostname(text, sizeof(text)) && !strcmp(text, "another"));
	CHECK(!getdomainname(text, sizeof(text)) && !strcmp(text, "domain"));
	test_read("/proc/sys/kernel/msgmax", text, sizeof(text));
	CHECK_EQUAL(atoi(text), 7777);
	CHECK(flags_of("lo") & IFF_UP);
	/* The file that is open is the one that is there. */
	CHECK(write(open_file, "more", 4) == 4);
	CHECK(!stat("/opt/made/other name", &st) && st.st_size == (off_t)(3 * SIZE + 4));
	CHECK_EQUAL(pread(removed, text, 10, 0), 4);
	CHECK(getcwd(text, sizeof(text)) && !strcmp(text, "/tmp/made/sub"));
	CHECK_EQUAL(getpid(), 2);
	test_pass();
}
