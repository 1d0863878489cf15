/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files on mounts that are attached nowhere: unmounted lazily, and never attached. A file system in
 * memory, a part of another one, and a directory where work goes on; several processes have them.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int *ready;
static int files[11];
static bool noswap, huge;
enum { LAZY, REMOVED, PART, MADE, HELD, SAME, ALONE, GONE, FIFO, READ, SPACE };

static void say(const char *path, const char *text)
{
	test_write(path, text, strlen(text));
}

static int mount_id(int fd)
{
	struct statx st;

	CHECK(!statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st));
	return (int)st.stx_mnt_id;
}

static void check_text(int fd, const char *text)
{
	char now[64] = "";

	CHECK(pread(fd, now, sizeof(now) - 1, 0) >= 0);
	CHECKF(!strcmp(now, text), "it is '%s', not '%s'", now, text);
}

static void check_link(int fd, const char *is)
{
	char path[64], link[600];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	CHECK(n > 0);
	link[n] = 0;
	CHECKF(!strcmp(link, is), "it is %s", link);
}

/* Its line in mountinfo. */
static bool find_attached(int fd, char line[4096])
{
	bool found = false;
	FILE *f = fopen("/proc/self/mountinfo", "r");

	CHECK(f);
	while (!found && fgets(line, 4096, f))
		found = atoi(line) == mount_id(fd);
	fclose(f);
	return found;
}

static bool is_attached(int fd)
{
	char line[4096];

	return find_attached(fd, line);
}

static int child(void *arg)
{
	char name[400] = "";

	/* the directory is known by this process alone */
	CHECK(!chdir("lazy/in"));
	ready[0] = 1;
	test_hold();
	check_text(files[LAZY], "lazy");
	CHECK(readlink("/proc/self/cwd", name, sizeof(name) - 1) > 0);
	CHECKF(!strcmp(name, "/in"), "it is %s", name);
	say("more", "more");
	CHECK(!access("../file", F_OK) && access("../removed", F_OK) < 0);
	return 3;
}

static int other(void *arg)
{
	int fd;

	CHECK(!unshare(CLONE_NEWNS) && !mount("real", "own", NULL, MS_BIND, NULL));
	fd = open("own/in", O_RDONLY | O_DIRECTORY);
	CHECK(!umount2("own", MNT_DETACH));
	ready[1] = 1;
	test_hold();
	CHECK(!is_attached(fd));
	check_link(fd, "/in");
	return 4;
}

/* A mount namespace that only a descriptor holds, with a file system in memory. */
static int brief(void *arg)
{
	CHECK(!unshare(CLONE_NEWNS) && !mount("space", "own", "tmpfs", 0, NULL));
	say("own/file", "in a space");
	ready[2] = 1;
	while (ready[2] < 2)
		usleep(1000);
	return 5;
}

static char own[4096];

/* Relative names are of no use after setns(): the working directory is its root. */
static int enter(void *arg)
{
	int fd;

	CHECK(!setns(files[SPACE], CLONE_NEWNS));
	fd = open(own, O_RDONLY);
	CHECK(fd >= 0);
	check_text(fd, "in a space");
	return 6;
}

static int make(void)
{
	int fs = (int)syscall(SYS_fsopen, "tmpfs", 0), fd;

	CHECK(fs >= 0 && !syscall(SYS_fsconfig, fs, 1, "size", "64k", 0) &&
	      !syscall(SYS_fsconfig, fs, 1, "mode", "0711", 0) &&
	      !syscall(SYS_fsconfig, fs, 1, "uid", "1000", 0) &&
	      !syscall(SYS_fsconfig, fs, 1, "gid", "1001", 0) &&
	      !syscall(SYS_fsconfig, fs, 0, "inode64", NULL, 0));
	/* not every kernel has these */
	noswap = !syscall(SYS_fsconfig, fs, 0, "noswap", NULL, 0);
	huge = !syscall(SYS_fsconfig, fs, 1, "huge", "advise", 0);
	CHECK(!syscall(SYS_fsconfig, fs, 6, NULL, NULL, 0));
	fd = (int)syscall(SYS_fsmount, fs, 0, 0);
	CHECK(fd >= 0);
	close(fs);
	return fd;
}

int main(void)
{
	struct statfs fs;
	struct stat st;
	pid_t pid, second, third;
	int fd;
	char *map, byte, line[4096];

	test_init();
	ready = test_shared(4096);
	CHECK(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK(!mkdir("lazy", 0755) && !mkdir("real", 0755) && !mkdir("real/in", 0755) &&
	      !mkdir("part", 0755) && !mkdir("own", 0755) && !mkdir("later", 0755));
	say("real/file", "real");

	CHECK(!mount("lazy", "lazy", "tmpfs", MS_NOEXEC, "size=128k,mode=0751"));
	CHECK(!mkdir("lazy/in", 0700));
	say("lazy/file", "lazy");
	say("lazy/unseen", "unseen");
	files[LAZY] = open("lazy/file", O_RDWR);
	files[SAME] = dup(files[LAZY]);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, files[LAZY], 0);
	CHECK(map != MAP_FAILED && lseek(files[LAZY], 2, SEEK_SET) == 2);
	files[REMOVED] = open("lazy/removed", O_RDWR | O_CREAT, 0600);
	CHECK(write(files[REMOVED], "gone", 4) == 4 && !unlink("lazy/removed"));
	pid = test_fork(child, NULL);
	while (!ready[0])
		usleep(1000);
	CHECK(!umount2("lazy", MNT_DETACH));
	second = test_fork(other, NULL);
	while (!ready[1])
		usleep(1000);
	/* there is no way to anything but these files */
	CHECK(!mount("lazy", "lazy", "tmpfs", 0, "size=128k") && !mkdir("lazy/deep", 0700));
	say("lazy/deep/file", "alone");
	files[ALONE] = open("lazy/deep/file", O_RDWR);
	files[GONE] = open("lazy/deep/gone", O_RDWR | O_CREAT, 0600);
	CHECK(write(files[GONE], "gone", 4) == 4 && !unlink("lazy/deep/gone"));
	CHECK(!mkfifo("lazy/fifo", 0600));
	files[FIFO] = open("lazy/fifo", O_RDWR);
	CHECK(write(files[FIFO], "x", 1) == 1 && !umount2("lazy", MNT_DETACH));
	/* what a path seems to lead to is another mount, on which it could be written to */
	CHECK(!mount("real", "part", NULL, MS_BIND, NULL));
	CHECK(!mount(NULL, "part", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
	files[PART] = open("part/file", O_RDONLY);
	files[READ] = make();
	fd = openat(files[READ], "gone", O_RDWR | O_CREAT, 0600);
	CHECK(write(fd, "read", 4) == 4 && !close(fd));
	CHECK((fd = openat(files[READ], "gone", O_RDONLY)) >= 0 &&
	      !unlinkat(files[READ], "gone", 0));
	CHECK(!syscall(SYS_mount_setattr, files[READ], "", AT_EMPTY_PATH, (uint64_t[4]){1}, 32));
	close(files[READ]);
	files[READ] = fd;
	CHECK(!umount2("part", MNT_DETACH));
	files[MADE] = make();
	files[HELD] = openat(files[MADE], "held", O_RDWR | O_CREAT, 0600);
	CHECK(write(files[HELD], "held", 4) == 4);
	/* met last */
	CHECK(getcwd(own, sizeof(own) - 10));
	strcat(own, "/own/file");
	third = test_fork(brief, NULL);
	while (!ready[2])
		usleep(1000);
	snprintf(line, sizeof(line), "/proc/%d/ns/mnt", third);
	files[SPACE] = open(line, O_RDONLY);
	CHECK(files[SPACE] > files[HELD]);
	ready[2] = 2;
	test_reap(third, 5);

	test_wait();
	if (test_break(1))
		CHECK(pwrite(files[LAZY], "x", 1, 0) == 1);
	check_text(files[LAZY], "lazy");
	check_link(files[LAZY], "/file");
	CHECK(lseek(files[SAME], 1, SEEK_CUR) == 3 && lseek(files[LAZY], 0, SEEK_CUR) == 3);
	map[0] = 'L';
	check_text(files[LAZY], "Lazy");
	map[0] = 'l';
	check_text(files[REMOVED], "gone");
	check_link(files[REMOVED], "/removed (deleted)");
	CHECK(mount_id(files[REMOVED]) == mount_id(files[LAZY]) && !is_attached(files[LAZY]));
	CHECK(!fstatfs(files[LAZY], &fs) && fs.f_blocks == 32 && fs.f_flags & 8);
	check_text(files[ALONE], "alone");
	check_link(files[ALONE], "/deep/file");
	CHECK(!fstat(files[ALONE], &st) && st.st_nlink == 1);
	CHECK(pwrite(files[ALONE], "A", 1, 0) == 1 && !is_attached(files[ALONE]));
	check_text(files[GONE], "gone");
	check_link(files[GONE], "/deep/gone (deleted)");
	check_text(files[READ], "read");
	CHECK(!fstatfs(files[READ], &fs) && fs.f_flags & 1);
	check_link(files[FIFO], "/fifo");
	CHECK(read(files[FIFO], &byte, 1) == 1 && byte == 'x');
	CHECK(mount_id(files[GONE]) == mount_id(files[ALONE]) &&
	      mount_id(files[FIFO]) == mount_id(files[ALONE]) &&
	      mount_id(files[ALONE]) != mount_id(files[LAZY]));
	check_text(files[PART], "real");
	check_link(files[PART], "/file");
	CHECK(!is_attached(files[PART]) && !fstatfs(files[PART], &fs) && fs.f_flags & 1);
	check_text(files[HELD], "held");
	CHECK(mount_id(files[HELD]) == mount_id(files[MADE]));
	CHECK(!syscall(SYS_move_mount, files[MADE], "", AT_FDCWD, "later", 4));
	CHECK(!stat("later/held", &st) && st.st_size == 4 && is_attached(files[HELD]));
	CHECK(find_attached(files[HELD], line));
	CHECKF(strstr(line, "size=64k") && strstr(line, "mode=711") && strstr(line, "uid=1000") &&
		       strstr(line, "gid=1001") && strstr(line, "inode64") &&
		       (!noswap || strstr(line, "noswap")) &&
		       (!huge || strstr(line, "huge=advise")),
	       "it is %s", line);
	CHECK(!stat("later", &st) && (st.st_mode & 07777) == 0711 && st.st_uid == 1000);
	test_reap(test_fork(enter, NULL), 6);
	test_reap(pid, 3);
	test_reap(second, 4);
	test_pass();
}
