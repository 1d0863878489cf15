/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files over which something was mounted since they were opened: on the same place, on a directory
 * above, on the file itself; a directory to work in, a root directory, what is mapped or
 * removed, a fifo. In the mount namespace of the first process, and in one of a child.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile int *ready;

/* What is open on one file system, below what covers it. */
struct opened {
	int file, again, removed, directory, fifo, over, path;
	char *map;
	bool own;
};

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

static void memory(const char *point, const char *text)
{
	CHECK(!mount(text, point, "tmpfs", 0, "size=1m"));
}

static int open_in(const char *dir, const char *name, int flags)
{
	char path[600];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags, 0600);
	CHECKF(fd >= 0, "%s: %s", path, strerror(errno));
	return fd;
}

/* Whether the file system is ours alone: else the one who is saved has the same files. */
static void fill(const char *dir, struct opened *o, bool own)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/file", dir);
	say(path, "seen by nobody");
	o->file = open_in(dir, "file", O_RDWR);
	CHECK_EQUAL(lseek(o->file, 5, SEEK_SET), 5);
	o->again = dup(o->file);
	o->map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, o->file, 0);
	CHECK(o->map != MAP_FAILED);
	o->removed = open_in(dir, "removed", O_RDWR | O_CREAT | O_EXCL);
	CHECK_EQUAL(write(o->removed, "gone", 4), 4);
	snprintf(path, sizeof(path), "%s/removed", dir);
	CHECK(!unlink(path));
	snprintf(path, sizeof(path), "%s/below", dir);
	CHECK(!mkdir(path, 0751));
	o->directory = open_in(dir, "below", O_RDONLY | O_DIRECTORY);
	snprintf(path, sizeof(path), "%s/below/inside", dir);
	say(path, "in");
	snprintf(path, sizeof(path), "%s/fifo", dir);
	CHECK(!mkfifo(path, 0600));
	o->fifo = open_in(dir, "fifo", O_RDWR);
	o->own = own;
	if (own)
		CHECK_EQUAL(write(o->fifo, "x", 1), 1);
	snprintf(path, sizeof(path), "%s/over", dir);
	say(path, "the first");
	o->over = open_in(dir, "over", O_RDONLY);
	o->path = open_in(dir, "file", O_PATH | O_NOFOLLOW);
}

static void check_text(int fd, const char *text)
{
	char now[64] = "";

	CHECK(pread(fd, now, sizeof(now) - 1, 0) >= 0);
	CHECKF(!strcmp(now, text), "it is '%s', not '%s'", now, text);
}

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

static void check_opened(const struct opened *o, const char *dir)
{
	const int mount = mount_id(o->file);
	struct stat st;
	char end[64], byte;

	check_text(o->file, "seen by nobody");
	snprintf(end, sizeof(end), "%s/file", dir);
	check_link(o->file, end);
	CHECK_EQUAL(lseek(o->again, 1, SEEK_CUR), 6);
	CHECK_EQUAL(lseek(o->file, 0, SEEK_CUR), 6);
	if (o->own) {
		o->map[0] = 'S';
		check_text(o->file, "Seen by nobody");
	}
	check_text(o->removed, "gone");
	snprintf(end, sizeof(end), "%s/removed (deleted)", dir);
	check_link(o->removed, end);
	CHECK(!fstat(o->directory, &st) && (st.st_mode & 07777) == 0751);
	CHECK(!fstatat(o->directory, "inside", &st, 0) && st.st_size == 2);
	if (o->own)
		CHECK(read(o->fifo, &byte, 1) == 1 && byte == 'x');
	check_text(o->over, "the first");
	CHECK(mount_id(o->removed) == mount && mount_id(o->directory) == mount &&
	      mount_id(o->fifo) == mount && mount_id(o->over) == mount &&
	      mount_id(o->path) == mount);
	CHECK(fcntl(o->path, F_GETFL) & O_NOFOLLOW);
}

struct all {
	struct opened same, above, plain, part;
};

static void set_up(struct all *a, const char *dir)
{
	char cwd[400], path[500];

	CHECK(!mkdir(dir, 0755) && !chdir(dir) && getcwd(cwd, sizeof(cwd)));
	for (const char *const *name = (const char *const[]){"same", "above", "above/deep", "plain",
							     "bind", "real", NULL};
	     *name; name++)
		CHECK(!mkdir(*name, 0755));
	/* covered where it is mounted, twice */
	memory("same", "one");
	fill("same", &a->same, true);
	say("other", "the second");
	CHECK(!mount("other", "same/over", NULL, MS_BIND, NULL));
	memory("same", "two");
	memory("same", "three");
	/* by a mount on a directory above */
	memory("above/deep", "deep");
	fill("above/deep", &a->above, true);
	memory("above", "over it");
	/* a directory of what is seen */
	fill("plain", &a->plain, false);
	memory("plain", "plain");
	/* a part of a file system, read-only where it is seen */
	CHECK(!mount("real", "bind", NULL, MS_BIND, NULL));
	fill("bind", &a->part, false);
	CHECK(!mount("bind", "bind", NULL, MS_BIND, NULL));
	CHECK(!mount(NULL, "bind", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
	/* where we work is covered, too */
	snprintf(path, sizeof(path), "%s", cwd);
	memory(path, "cwd");
}

static void check(const struct all *a, const char *dir)
{
	char cwd[400], path[500];
	struct stat st;

	check_opened(&a->same, "same");
	check_opened(&a->above, "above/deep");
	check_opened(&a->plain, "plain");
	check_opened(&a->part, "bind");
	if (test_break(1))
		CHECK(!chdir("/"));
	CHECK(getcwd(cwd, sizeof(cwd)));
	CHECKF(strstr(cwd, dir), "it is %s", cwd);
	CHECK(!stat("real/file", &st) && !stat("other", &st));
	snprintf(path, sizeof(path), "%s/other", cwd);
	CHECK(stat(path, &st) < 0);
	CHECK(!umount2(cwd, 0) && !stat(path, &st));
	CHECK(!umount2("same", 0) && !umount2("same", 0));
	CHECK(!stat("same/file", &st) && st.st_size == 14);
	CHECK(!fstat(a->same.file, &st) && st.st_size == 14);
}

static int child(void *arg)
{
	struct all a;

	CHECK(!unshare(CLONE_NEWNS));
	set_up(&a, "inner");
	ready[0] = 1;
	test_hold();
	check(&a, "inner");
	return 3;
}

/* Its root directory is covered. */
static int jailed(void *arg)
{
	char path[600];
	struct stat st;

	CHECK(!mkdir("jail", 0755) && !mkdir("jail/in", 0755));
	say("jail/in/text", "jailed");
	CHECK(!chroot("jail/in") && !chdir("/"));
	ready[1] = 1;
	while (!ready[2])
		usleep(1000);
	CHECK(!stat("/text", &st) && st.st_size == 6);
	CHECK(getcwd(path, sizeof(path)) && !strcmp(path, "/"));
	return 4;
}

int main(void)
{
	pid_t pid, other;
	struct all a;

	test_init();
	ready = test_shared(4096);
	CHECK(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	pid = test_fork(child, NULL);
	while (!ready[0])
		usleep(1000);
	other = test_fork(jailed, NULL);
	while (!ready[1])
		usleep(1000);
	memory("jail", "over the jail");
	set_up(&a, "outer");
	test_wait();
	ready[2] = 1;
	check(&a, "outer");
	test_reap(pid, 3);
	test_reap(other, 4);
	test_pass();
}
