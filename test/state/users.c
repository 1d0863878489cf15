/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User namespaces of processes below the root: who is called what there, who may do what, in
 * whose they are, and what of them is only held.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OWNER, MAPPED, DEEP, CHILD, NOBODY, THREADS, PLACES };

static volatile pid_t *shared;

static void ready(int i)
{
	shared[i] = getpid();
	test_hold();
}

static void await(int i)
{
	while (!shared[i])
		usleep(1000);
}

static int own(void)
{
	int fd = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static ino_t number_of(int fd)
{
	struct stat st;

	CHECK(fd >= 0 && !fstat(fd, &st));
	return st.st_ino;
}

static void write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
}

static void expect(const char *path, const char *text)
{
	char now[512] = "";
	int fd = open(path, O_RDONLY), n;

	CHECK(fd >= 0 && (n = (int)read(fd, now, sizeof(now) - 1)) >= 0 && !close(fd));
	/* Columns are as wide as the kernel likes them. */
	for (char *from = now, *to = now;; from++) {
		if (*from == ' ' && (to == now || to[-1] == ' ' || to[-1] == '\n'))
			continue;
		*to++ = *from;
		if (!*from)
			break;
	}
	if (strcmp(now, text))
		printf("%s: %s", path, now);
	CHECK(!strcmp(now, text));
}

static uint64_t effective(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];

	CHECK(!syscall(SYS_capget, &head, caps));
	return caps[0].effective | (uint64_t)caps[1].effective << 32;
}

static uid_t owner_of(int fd)
{
	uid_t uid;

	CHECK(!ioctl(fd, NS_GET_OWNER_UID, &uid));
	return uid;
}

/* ---- an ordinary user makes himself root ---- */

static int child(void *arg)
{
	char path[64];

	ready(CHILD);
	snprintf(path, sizeof(path), "/proc/%d/ns/user", getppid());
	CHECK_EQUAL(number_of(own()), number_of(open(path, O_RDONLY | O_CLOEXEC)));
	CHECK(getuid() == 0 && effective() & 1ull << CAP_SYS_TIME);
	return 12;
}

static int by_owner(void *arg)
{
	char map[32];
	pid_t pid;
	int fd;

	CHECK(!setgroups(0, NULL) && !setresgid(1234, 1234, 1234) && !setresuid(1234, 1234, 1234));
	CHECK(!unshare(CLONE_NEWUSER));
	CHECK(!prctl(PR_SET_DUMPABLE, 1));
	write_to("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "0 1234 1");
	write_to("/proc/self/uid_map", map);
	write_to("/proc/self/gid_map", map);
	fd = own();
	pid = test_fork(child, NULL);
	await(CHILD);
	CHECK(!prctl(PR_CAPBSET_DROP, CAP_SYS_TIME));
	ready(OWNER);
	if (test_break(1))
		CHECK(!unshare(CLONE_NEWUSER));
	CHECK_EQUAL(number_of(fd), number_of(own()));
	expect("/proc/self/uid_map", "0 1234 1\n");
	expect("/proc/self/gid_map", "0 1234 1\n");
	expect("/proc/self/setgroups", "deny\n");
	CHECK(getuid() == 0 && getgid() == 0 && setgroups(0, NULL) < 0);
	CHECK(effective() & 1ull << CAP_SYS_ADMIN);
	CHECK(prctl(PR_CAPBSET_READ, CAP_SYS_TIME) == 0 &&
	      prctl(PR_CAPBSET_READ, CAP_SYS_BOOT) == 1);
	/* root here alone */
	CHECK(sethostname("x", 1) < 0 && !unshare(CLONE_NEWUTS) && !sethostname("x", 1));
	CHECK(ioctl(fd, NS_GET_PARENT) < 0);
	test_reap(pid, 12);
	return 11;
}

/* ---- maps of several lines, and another namespace below ---- */

static int deep(void *arg)
{
	ready(DEEP);
	CHECK(getuid() == 3 && geteuid() == 4 && getgid() == 5);
	expect("/proc/self/uid_map", "3 2000 2\n");
	expect("/proc/self/gid_map", "5 3000 1\n");
	expect("/proc/sys/user/max_user_namespaces", "7\n");
	CHECK(effective() == 1ull << CAP_NET_ADMIN);
	CHECK(prctl(PR_GET_SECUREBITS) == SECBIT_NOROOT);
	return 14;
}

static void lower(uint64_t to)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2] = {
		{(uint32_t)to, (uint32_t)to, 0},
		{(uint32_t)(to >> 32), (uint32_t)(to >> 32), 0},
	};

	CHECK(!syscall(SYS_capset, &head, caps));
}

static int go_deep(void *arg)
{
	int *pipes = arg;
	char byte;

	CHECK(!unshare(CLONE_NEWUSER));
	CHECK(!prctl(PR_SET_DUMPABLE, 1));
	CHECK(write(pipes[1], "", 1) == 1 && read(pipes[2], &byte, 1) == 1);
	write_to("/proc/sys/user/max_user_namespaces", "7");
	CHECK(!prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS));
	CHECK(!setresgid(5, 5, 5) && !setresuid(3, 4, 3));
	CHECK(!prctl(PR_SET_SECUREBITS, SECBIT_NOROOT));
	lower(1ull << CAP_NET_ADMIN);
	CHECK(!prctl(PR_SET_DUMPABLE, 1));
	for (int i = 0; i < 4; i++)
		close(pipes[i]);
	return deep(NULL);
}

static int mapped_go(void *arg)
{
	int *up = arg, pipes[4], below;
	gid_t groups[2] = {3, 1};
	char byte, path[64];
	pid_t pid;

	CHECK(!unshare(CLONE_NEWUSER));
	CHECK(!prctl(PR_SET_DUMPABLE, 1));
	CHECK(write(up[1], "", 1) == 1 && read(up[2], &byte, 1) == 1);
	for (int i = 0; i < 4; i++)
		close(up[i]);
	CHECK(!setgroups(2, groups) && !setresgid(0, 0, 0) && !setresuid(0, 0, 0));
	CHECK(!prctl(PR_SET_DUMPABLE, 1));
	CHECK(!pipe(pipes) && !pipe(pipes + 2));
	pid = test_fork(go_deep, pipes);
	CHECK(read(pipes[0], &byte, 1) == 1);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	write_to(path, "3 2000 2");
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	write_to(path, "5 3000 1");
	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	below = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(below >= 0 && write(pipes[3], "", 1) == 1);
	for (int i = 0; i < 4; i++)
		close(pipes[i]);
	await(DEEP);
	ready(MAPPED);
	expect("/proc/self/uid_map", "0 100000 1000\n2000 200000 1000\n");
	expect("/proc/self/gid_map", "0 100000 4000\n");
	expect("/proc/self/projid_map", "0 7000 10\n");
	expect("/proc/self/setgroups", "allow\n");
	CHECK(getgroups(2, groups) == 2 && groups[0] + groups[1] == 4);
	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	CHECK_EQUAL(number_of(open(path, O_RDONLY | O_CLOEXEC)), number_of(below));
	CHECK_EQUAL(number_of(ioctl(below, NS_GET_PARENT)), number_of(own()));
	CHECK_EQUAL(owner_of(below), 0);
	if (test_break(2))
		return 1;
	test_reap(pid, 14);
	return 13;
}

/* ---- no maps; threads ---- */

static volatile pid_t tids[2];

static void *thread(void *arg)
{
	pid_t tid = (pid_t)syscall(SYS_gettid);

	tids[(long)arg] = tid;
	test_hold();
	CHECK(tid == syscall(SYS_gettid) && getuid() == 65534);
	CHECK(effective() & 1ull << CAP_SYS_ADMIN);
	return NULL;
}

static int nobody(void *arg)
{
	pthread_t threads[2];

	CHECK(!unshare(CLONE_NEWUSER));
	for (long i = 0; i < 2; i++)
		CHECK(!pthread_create(&threads[i], NULL, thread, (void *)i));
	while (!tids[0] || !tids[1])
		usleep(1000);
	ready(NOBODY);
	CHECK(getuid() == 65534 && effective() & 1ull << CAP_SYS_ADMIN);
	expect("/proc/self/uid_map", "");
	expect("/proc/self/setgroups", "allow\n");
	for (int i = 0; i < 2; i++)
		CHECK(!pthread_join(threads[i], NULL));
	return 15;
}

/* ---- held by a descriptor, and by whom it was made ---- */

static int maker(void *arg)
{
	int *pipes = arg;
	char byte;

	CHECK(!setresuid(-1, 77, -1) && !unshare(CLONE_NEWUSER) && !prctl(PR_SET_DUMPABLE, 1));
	CHECK(write(pipes[1], "", 1) == 1 && read(pipes[2], &byte, 1) == 1);
	return 0;
}

static int hold(void)
{
	char byte, path[64];
	int pipes[4], fd;
	pid_t pid;

	CHECK(!pipe(pipes) && !pipe(pipes + 2));
	pid = test_fork(maker, pipes);
	CHECK(read(pipes[0], &byte, 1) == 1);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	write_to(path, "9 77 1");
	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(write(pipes[3], "", 1) == 1);
	for (int i = 0; i < 4; i++)
		close(pipes[i]);
	test_reap(pid, 0);
	return fd;
}

static int visitor(void *arg)
{
	CHECK(!setns(*(int *)arg, CLONE_NEWUSER));
	expect("/proc/self/uid_map", "9 77 1\n");
	CHECK(!setresuid(9, 9, 9));
	return 0;
}

int main(void)
{
	pid_t owner, mapped, none;
	int pipes[4], held;
	char byte, path[64];

	test_init();
	shared = test_shared(4096);
	CHECK(!pipe(pipes) && !pipe(pipes + 2));
	mapped = test_fork(mapped_go, pipes);
	CHECK(read(pipes[0], &byte, 1) == 1);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", mapped);
	write_to(path, "0 100000 1000\n2000 200000 1000");
	snprintf(path, sizeof(path), "/proc/%d/gid_map", mapped);
	write_to(path, "0 100000 4000");
	snprintf(path, sizeof(path), "/proc/%d/projid_map", mapped);
	write_to(path, "0 7000 10");
	CHECK(write(pipes[3], "", 1) == 1);
	for (int i = 0; i < 4; i++)
		close(pipes[i]);
	owner = test_fork(by_owner, NULL);
	none = test_fork(nobody, NULL);
	held = hold();
	await(OWNER);
	await(MAPPED);
	await(NOBODY);
	test_wait();
	if (test_break(3))
		held = own();
	CHECK(owner_of(held) == 77);
	CHECK_EQUAL(number_of(ioctl(held, NS_GET_PARENT)), number_of(own()));
	test_reap(test_fork(visitor, &held), 0);
	test_reap(owner, 11);
	test_reap(mapped, 13);
	test_reap(none, 15);
	test_pass();
}
