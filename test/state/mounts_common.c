/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mount namespaces that have file systems in common which none above them has any more: what one
 * of them writes, or mounts where mounts are shared, the other one sees.
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

enum { FIRST, SECOND, PARENT, DONE, WROTE };

static volatile int *ready;

static void await(int i)
{
	while (!ready[i])
		usleep(1000);
}

static dev_t device_of(const char *path)
{
	struct stat st;

	CHECK(!stat(path, &st));
	return st.st_dev;
}

static void check_text(const char *path, const char *text)
{
	char now[64];

	test_read(path, now, sizeof(now));
	CHECKF(!strcmp(now, text), "%s: '%s'", path, now);
}

static int first(void *arg)
{
	CHECK(!unshare(CLONE_NEWNS));
	ready[FIRST] = 1;
	await(PARENT);
	test_write("memory/by-first", "one", 3);
	CHECK(!mount("own", "own", "tmpfs", 0, NULL));
	ready[DONE] = 1;
	test_hold();
	check_text("memory/before", "zero");
	check_text("memory/by-first", "one");
	CHECK(device_of("gone") != device_of("."));
	CHECK(device_of("own") != device_of("."));
	if (test_break(1)) {
		CHECK(!umount2("memory", MNT_DETACH));
		CHECK(!mount("other", "memory", "tmpfs", 0, NULL));
	}
	if (test_break(2))
		CHECK(!mount(NULL, "shared", NULL, MS_PRIVATE, NULL));
	CHECK(!mount("more", "shared/sub", "tmpfs", 0, NULL));
	test_write("shared/sub/file", "three", 5);
	test_write("memory/after", "two", 3);
	ready[WROTE] = 1;
	return 3;
}

static int second(void *arg)
{
	CHECK(!unshare(CLONE_NEWNS));
	CHECK(!umount2("gone", MNT_DETACH));
	ready[SECOND] = 1;
	test_hold();
	await(WROTE);
	check_text("memory/before", "zero");
	check_text("memory/by-first", "one");
	check_text("memory/after", "two");
	check_text("shared/sub/file", "three");
	CHECK(device_of("gone") == device_of("."));
	CHECK(device_of("own") == device_of("."));
	return 4;
}

/* It has nothing of what it gave them. */
static int parent(void *arg)
{
	static const char *const dirs[] = {"memory", "gone", "shared"};
	pid_t pid[2];

	CHECK(!unshare(CLONE_NEWNS));
	CHECK(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	for (int i = 0; i < 3; i++)
		CHECK(!mount(dirs[i], dirs[i], "tmpfs", 0, "size=1m"));
	test_write("memory/before", "zero", 4);
	CHECK(!mkdir("shared/sub", 0755) && !mount(NULL, "shared", NULL, MS_SHARED, NULL));
	pid[0] = test_fork(first, NULL);
	await(FIRST);
	pid[1] = test_fork(second, NULL);
	await(SECOND);
	CHECK(!mount(NULL, "shared", NULL, MS_PRIVATE, NULL));
	for (int i = 0; i < 3; i++)
		CHECK(!umount2(dirs[i], MNT_DETACH));
	ready[PARENT] = 1;
	test_hold();
	for (int i = 0; i < 3; i++)
		CHECK(device_of(dirs[i]) == device_of("."));
	test_reap(pid[0], 3);
	test_reap(pid[1], 4);
	return 5;
}

int main(void)
{
	pid_t pid;

	test_init();
	ready = test_shared(4096);
	CHECK(!mkdir("memory", 0755) && !mkdir("gone", 0755) && !mkdir("shared", 0755) &&
	      !mkdir("own", 0755));
	pid = test_fork(parent, NULL);
	await(DONE);
	test_wait();
	test_reap(pid, 5);
	test_pass();
}
