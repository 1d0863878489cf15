/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A root directory that was removed, with the working directory in it or elsewhere, and two tasks
 * that are in the same one; one that was opened before.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile int *shared;
static int opened, top;

static ino_t inode_of(int at, const char *name)
{
	struct stat st;

	CHECK(!fstatat(at, name, &st, 0) && S_ISDIR(st.st_mode));
	return st.st_ino;
}

static int confined(void *arg)
{
	bool inside = arg != NULL;
	char path[400];

	CHECK(!chroot("jail") && (!inside || !chdir("/etc")));
	__atomic_add_fetch(&shared[0], 1, __ATOMIC_SEQ_CST);
	while (!shared[1])
		usleep(1000);
	if (inside && test_break(1))
		CHECK(!fchdir(top) && !chroot("."));
	CHECK(open("/file", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
	CHECK(access("/etc", F_OK) < 0 && access("/proc", F_OK) < 0);
	CHECK_EQUAL(inode_of(AT_FDCWD, "/"), inode_of(opened, "."));
	CHECK_EQUAL(inode_of(AT_FDCWD, "/.."), inode_of(opened, "."));
	if (inside)
		CHECK(!getcwd(path, sizeof(path)) && errno == ENOENT);
	else
		CHECK(!access("witness", F_OK));
	return 3;
}

static void check_root(pid_t pid)
{
	char path[64], link[500] = "";

	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	CHECK(readlink(path, link, sizeof(link) - 1) > 0);
	CHECKF(strstr(link, "/jail (deleted)"), "the root directory is %s", link);
}

int main(void)
{
	pid_t pids[2];

	test_init();
	shared = test_shared(4096);
	test_write("witness", "", 0);
	CHECK(!mkdir("jail", 0751) && !mkdir("jail/etc", 0755));
	top = open(".", O_RDONLY | O_DIRECTORY);
	opened = open("jail", O_RDONLY | O_DIRECTORY);
	pids[0] = test_fork(confined, NULL);
	pids[1] = test_fork(confined, (void *)1);
	while (__atomic_load_n(&shared[0], __ATOMIC_SEQ_CST) < 2)
		usleep(1000);
	CHECK(!rmdir("jail/etc") && !rmdir("jail"));

	test_wait();
	for (int i = 0; i < 2; i++)
		check_root(pids[i]);
	shared[1] = 1;
	for (int i = 0; i < 2; i++)
		test_reap(pids[i], 3);
	CHECK(access("jail", F_OK) < 0);
	test_pass();
}
