/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts that lie below others, with their files: at the same place, below a directory, and with
 * mounts on them. In the mount namespace of the first process, and in one of a child.
 *
 * needs: root
 */
#include "harness.h"

#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile int *ready;

static char *in(const char *dir, const char *name)
{
	static char path[4][64];
	static int next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static void memory(const char *point, const char *options, const char *text)
{
	CHECK(!mount(text, point, "tmpfs", 0, options));
	test_write(in(point, "text"), text, strlen(text));
}

static void change(const char *point, unsigned long how)
{
	CHECK(!mount(NULL, point, NULL, how, NULL));
}

static void check_text(const char *point, const char *text)
{
	char now[64] = "";

	test_read(in(point, "text"), now, sizeof(now));
	CHECKF(!strcmp(now, text), "in %s: '%s', not '%s'", point, now, text);
}

static void take_away(const char *point)
{
	CHECK(!umount2(point, 0));
}

/* One on the other; what is below is read-only, and a part of it is bound. */
static void set_up(const char *dir)
{
	char path[64];

	CHECK(!mkdir(dir, 0755));
	memory(dir, "size=1m", "base");
	for (const char *s = "abcdu"; *s; s++) {
		snprintf(path, sizeof(path), "%s/%c", dir, *s);
		CHECK(!mkdir(path, 0755));
	}
	memory(in(dir, "a"), "size=1m,mode=0751", "first");
	CHECK(!mkdir(in(dir, "a/part"), 0755));
	test_write(in(dir, "a/part/text"), "part", 4);
	CHECK(!mount(in(dir, "a/part"), in(dir, "c"), NULL, MS_BIND, NULL));
	memory(in(dir, "a"), "size=64k,nr_inodes=20", "second");
	change(in(dir, "a"), MS_REMOUNT | MS_RDONLY);
	memory(in(dir, "a"), "size=1m", "third");
	/* over the directory above; it exchanges mounts with one that is seen */
	CHECK(!mkdir(in(dir, "b/deep"), 0755));
	memory(in(dir, "b/deep"), "size=1m", "deep");
	CHECK(!mkdir(in(dir, "b/deep/point"), 0755));
	change(in(dir, "b/deep"), MS_SHARED);
	CHECK(!mount(in(dir, "b/deep"), in(dir, "d"), NULL, MS_BIND, NULL));
	memory(in(dir, "b"), "size=1m", "cover");
	/* there is no copy of it alone */
	memory(in(dir, "u"), "size=1m", "unbindable");
	CHECK(!mkdir(in(dir, "u/on"), 0755));
	change(in(dir, "u"), MS_UNBINDABLE);
	memory(in(dir, "u/on"), "size=1m", "on it");
}

static void check(const char *dir)
{
	struct stat st;

	check_text(dir, "base");
	check_text(in(dir, "a"), "third");
	take_away(in(dir, "a"));
	check_text(in(dir, "a"), "second");
	CHECK(mkdir(in(dir, "a/new"), 0755) < 0 && errno == EROFS);
	take_away(in(dir, "a"));
	if (test_break(1))
		take_away(in(dir, "a"));
	check_text(in(dir, "a"), "first");
	CHECK(!stat(in(dir, "a"), &st) && (st.st_mode & 07777) == 0751);
	check_text(in(dir, "c"), "part");
	test_write(in(dir, "c/more"), "", 0);
	CHECK(!stat(in(dir, "a/part/more"), &st));

	check_text(in(dir, "b"), "cover");
	CHECK(stat(in(dir, "b/deep"), &st) < 0);
	take_away(in(dir, "b"));
	check_text(in(dir, "b/deep"), "deep");
	if (test_break(2))
		change(in(dir, "b/deep"), MS_PRIVATE);
	CHECK(!mount("sent", in(dir, "d/point"), "tmpfs", 0, "size=64k"));
	CHECK(!mkdir(in(dir, "d/point/here"), 0755));
	CHECK(!stat(in(dir, "b/deep/point/here"), &st));

	check_text(in(dir, "u"), "unbindable");
	check_text(in(dir, "u/on"), "on it");
	if (test_break(3))
		change(in(dir, "u"), MS_PRIVATE);
	CHECK(mount(in(dir, "u"), in(dir, "c"), NULL, MS_BIND, NULL) < 0 && errno == EINVAL);
}

static int child(void *arg)
{
	CHECK(!unshare(CLONE_NEWNS));
	set_up("inner");
	ready[0] = 1;
	test_hold();
	check("inner");
	return 3;
}

int main(void)
{
	pid_t pid;

	test_init();
	ready = test_shared(4096);
	CHECK(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	pid = test_fork(child, NULL);
	while (!ready[0])
		usleep(1000);
	set_up("outer");
	test_wait();
	check("outer");
	test_reap(pid, 3);
	test_pass();
}
