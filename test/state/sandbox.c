/* SPDX-License-Identifier: Apache-2.0 */
/* What a browser makes of its processes: of an ordinary user, in user and pid namespaces of their
 * own, with a directory of a task that has ended as their root, and without any right.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

static volatile int *shared;

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void shut_in(void)
{
	long pid = syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0);
	int status;

	if (pid == 0)
		_exit(chroot("/proc/self/fdinfo") || chdir("/"));
	CHECK(pid > 0 && waitpid((pid_t)pid, &status, 0) == pid && status == 0);
}

static void drop_all(void)
{
	struct {
		uint32_t version;
		int pid;
	} head = {0x20080522, 0};
	uint32_t none[6] = {};

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !syscall(SYS_capset, &head, none));
}

static void confined(int number)
{
	__atomic_add_fetch(&shared[0], 1, __ATOMIC_SEQ_CST);
	while (!shared[1])
		usleep(1000);
	CHECK(access("/etc", F_OK) < 0 && access("/proc", F_OK) < 0 && access("/1", F_OK) < 0);
	CHECK_EQUAL(syscall(SYS_getpid), number);
	CHECK_EQUAL(getuid(), NOBODY);
	CHECK(chroot("/") < 0);
	__atomic_add_fetch(&shared[2], 1, __ATOMIC_SEQ_CST);
}

static int zygote(void)
{
	pid_t worker;

	shut_in();
	drop_all();
	worker = fork();
	CHECK(worker >= 0);
	if (worker == 0) {
		confined(test_break(1) ? 4 : 3);
		_exit(4);
	}
	confined(1);
	test_reap(worker, 4);
	return 3;
}

static int browser(void *arg)
{
	int go[2];
	char path[64], byte;
	long pid;

	CHECK(!setgid(NOBODY) && !setuid(NOBODY) && !prctl(PR_SET_DUMPABLE, 1) && !pipe(go));
	pid = syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK(read(go[0], &byte, 1) == 1);
		close(go[0]);
		close(go[1]);
		_exit(zygote());
	}
	snprintf(path, sizeof(path), "/proc/%ld/setgroups", pid);
	put(path, "deny");
	snprintf(path, sizeof(path), "/proc/%ld/uid_map", pid);
	put(path, "65534 65534 1");
	snprintf(path, sizeof(path), "/proc/%ld/gid_map", pid);
	put(path, "65534 65534 1");
	CHECK(write(go[1], "g", 1) == 1);
	close(go[0]);
	close(go[1]);
	test_reap((pid_t)pid, 3);
	return 5;
}

int main(void)
{
	pid_t pid;

	test_init();
	shared = test_shared(4096);
	pid = test_fork(browser, NULL);
	while (shared[0] < 2)
		usleep(1000);
	test_wait();
	shared[1] = 1;
	test_reap(pid, 5);
	CHECK_EQUAL(shared[2], 2);
	test_pass();
}
