/* SPDX-License-Identifier: Apache-2.0 */
/* Working directory and umask of processes, also of those that share them; a directory that is
 * gone. */
#include "harness.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char where[400];
static volatile int *shared;

static void expect_cwd(const char *suffix)
{
	char now[400];

	CHECK(getcwd(now, sizeof(now)));
	CHECKF(!strncmp(now, where, strlen(where)) && !strcmp(now + strlen(where), suffix),
	       "the working directory is %s, not %s%s", now, where, suffix);
}

/* CLONE_FS without CLONE_VM: what it changes is changed in its parent. */
static int sharer(void)
{
	shared[0] = 1;
	test_hold();
	while (!shared[1])
		usleep(1000);
	expect_cwd("/b");
	CHECK(!chdir("../c"));
	umask(0077);
	return 4;
}

static int in_removed(void *arg)
{
	char path[400], link[400] = "";
	struct stat info;

	CHECK(!mkdir("removed", 0755) && !chdir("removed") && !rmdir("../removed"));
	shared[2] = 1;
	test_hold();
	CHECK(!getcwd(path, sizeof(path)) && errno == ENOENT);
	CHECK(readlink("/proc/self/cwd", link, sizeof(link) - 1) > 0);
	CHECKF(strstr(link, "/removed (deleted)"), "the removed directory is now %s", link);
	CHECK(!stat(".", &info) && info.st_nlink == 0);
	return 8;
}

int main(void)
{
	pid_t pid, removed;

	test_init();
	shared = test_shared(4096);
	snprintf(where, sizeof(where), "%s", test_dir());
	CHECK(!mkdir("a", 0755) && !mkdir("b", 0755) && !mkdir("c", 0755));
	removed = test_fork(in_removed, NULL);
	CHECK(!chdir("a"));
	umask(0123);
	pid = syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		_exit(sharer());
	while (!shared[0] || !shared[2])
		usleep(1000);
	test_wait();
	if (test_break(1))
		unshare(CLONE_FS);
	expect_cwd("/a");
	CHECK_EQUAL(umask(0123), 0123);
	CHECK(!chdir("../b"));
	shared[1] = 1;
	test_reap(pid, 4);
	expect_cwd("/c");
	CHECK_EQUAL(umask(0), 0077);
	test_reap(removed, 8);
	test_pass();
}
