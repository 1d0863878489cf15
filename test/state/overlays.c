/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overlays of directories in memory: in the mount namespace of the first process, and in one of a
 * child; one of them over the other, and one below another mount.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile int *ready;

static char *in(const char *dir, const char *name)
{
	static char path[4][96];
	static int next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static void check_text(const char *path, const char *text)
{
	char now[64] = "";

	test_read(path, now, sizeof(now));
	CHECKF(!strcmp(now, text), "%s: '%s', not '%s'", path, now, text);
}

/* Directories are named from the root. */
static void overlay(const char *dir, const char *lower, const char *upper, const char *work,
		    const char *on)
{
	char here[512], data[4096];

	CHECK(getcwd(here, sizeof(here)));
	snprintf(data, sizeof(data),
		 "lowerdir=%s/%s/%s:%s/%s/l2,upperdir=%s/%s/%s,workdir=%s/%s/%s,redirect_dir=on",
		 here, dir, lower, here, dir, here, dir, upper, here, dir, work);
	if (mount("layers", in(dir, on), "overlay", MS_NOSUID, data))
		test_skip("no overlay in memory here: %s", strerror(errno));
}

static int set_up(const char *dir)
{
	static const char *const names[] = {"l1", "l2", "u", "w", "m", "u2", "w2", "m2", "l1/old"};
	int fd;

	CHECK(!mkdir(dir, 0755) && !mount("memory", dir, "tmpfs", 0, "size=4m"));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		CHECK(!mkdir(in(dir, names[i]), 0755));
	test_write(in(dir, "l1/first"), "first", 5);
	test_write(in(dir, "l2/second"), "second", 6);
	test_write(in(dir, "l2/gone"), "gone", 4);
	overlay(dir, "l1", "u", "w", "m");
	test_write(in(dir, "m/first"), "written", 7);
	CHECK(!unlink(in(dir, "m/gone")));
	CHECK(!rename(in(dir, "m/old"), in(dir, "m/moved")));
	fd = open(in(dir, "m/open"), O_RDWR | O_CREAT | O_APPEND, 0600);
	CHECK(fd >= 0 && write(fd, "one", 3) == 3);
	overlay(dir, "m", "u2", "w2", "m2");
	test_write(in(dir, "m2/upper"), "upper", 5);
	CHECK(!mount("cover", in(dir, "m2"), "tmpfs", 0, "size=64k"));
	return fd;
}

static void check(const char *dir, int fd)
{
	struct stat st;

	if (test_break(1))
		CHECK(!umount2(in(dir, "m"), MNT_DETACH));
	check_text(in(dir, "m/first"), "written");
	check_text(in(dir, "l1/first"), "first");
	check_text(in(dir, "m/second"), "second");
	CHECK(stat(in(dir, "m/gone"), &st) < 0 && !stat(in(dir, "l2/gone"), &st));
	CHECK(stat(in(dir, "m/old"), &st) < 0 && !stat(in(dir, "m/moved"), &st));
	if (test_break(2))
		CHECK(!ftruncate(fd, 0));
	CHECK(write(fd, "two", 3) == 3);
	check_text(in(dir, "m/open"), "onetwo");
	check_text(in(dir, "u/open"), "onetwo");
	test_write(in(dir, "m/second"), "copied", 6);
	check_text(in(dir, "u/second"), "copied");
	check_text(in(dir, "l2/second"), "second");
	CHECK(!umount2(in(dir, "m2"), 0));
	check_text(in(dir, "m2/upper"), "upper");
	check_text(in(dir, "m2/first"), "written");
}

static int child(void *arg)
{
	int fd;

	CHECK(!unshare(CLONE_NEWNS));
	fd = set_up("inner");
	ready[0] = 1;
	test_hold();
	check("inner", fd);
	return 3;
}

int main(void)
{
	pid_t pid;
	int fd;

	test_init();
	ready = test_shared(4096);
	CHECK(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	fd = set_up("outer");
	pid = test_fork(child, NULL);
	while (!ready[0])
		usleep(1000);
	test_wait();
	check("outer", fd);
	test_reap(pid, 3);
	test_pass();
}
