/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of /proc about a task that has ended, as root and working directory: sandboxes shut
 * themselves in there.
 *
 * needs: root
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int *shared;

static mode_t mode_of(const char *dir)
{
	struct stat st;

	CHECK(!stat(dir, &st) && S_ISDIR(st.st_mode));
	return st.st_mode;
}

/* A child that shares the directories changes them, and ends. */
static void shut_in(const char *root, const char *cwd)
{
	long pid = syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0);
	int status;

	if (pid == 0)
		_exit(chdir(cwd) || (root && (chroot(root) || chdir("/"))) ? 1 : 0);
	CHECK(pid > 0 && waitpid((pid_t)pid, &status, 0) == pid && status == 0);
}

static void check_empty(const char *dir, mode_t mode)
{
	int fd;

	CHECK_EQUAL(mode_of(dir), mode);
	CHECK(access("1", F_OK) < 0 && access("/proc", F_OK) < 0 && access("/etc", F_OK) < 0);
	fd = open(dir, O_PATH | O_DIRECTORY);
	CHECK(fd < 0 || openat(fd, "1", O_RDONLY) < 0);
	close(fd);
	CHECK(mkdir("x", 0755) < 0 && open("x", O_CREAT | O_WRONLY, 0600) < 0);
}

static int confined(void *arg)
{
	bool whole = arg != NULL;
	mode_t mode;

	shut_in(whole ? "/proc/self" : "/proc/self/fdinfo", "/");
	if (!whole) /* a child has directories of its own, which are the same */
		CHECK(!unshare(CLONE_FS));
	mode = mode_of("/");
	__atomic_add_fetch(&shared[0], 1, __ATOMIC_SEQ_CST);
	while (!shared[1])
		usleep(1000);
	if (test_break(1))
		CHECK(!chdir("/..") && !chroot("/etc"));
	check_empty("/", mode);
	return 3;
}

/* Only the working directory. */
static int elsewhere(void *arg)
{
	char buf[4096];

	shut_in(NULL, "/proc/self/task");
	__atomic_add_fetch(&shared[0], 1, __ATOMIC_SEQ_CST);
	while (!shared[1])
		usleep(1000);
	CHECK(access("/etc/passwd", F_OK) == 0);
	CHECK(openat(AT_FDCWD, "1", O_RDONLY | O_DIRECTORY) < 0 &&
	      (errno == ENOENT || errno == ESRCH));
	CHECK(readlink("/proc/self/cwd", buf, sizeof(buf)) > 0 && !strncmp(buf, "/proc/", 6));
	CHECK(strstr(buf, "/task"));
	return 4;
}

int main(void)
{
	pid_t pids[3];

	test_init();
	shared = test_shared(4096);
	pids[0] = test_fork(confined, NULL);
	pids[1] = test_fork(confined, (void *)1);
	pids[2] = test_fork(elsewhere, NULL);
	while (shared[0] < 3)
		usleep(1000);
	test_wait();
	shared[1] = 1;
	test_reap(pids[0], 3);
	test_reap(pids[1], 3);
	test_reap(pids[2], 4);
	test_pass();
}
