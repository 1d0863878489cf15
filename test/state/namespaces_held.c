/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces that nobody is in: held by a descriptor, or by a file on which they are mounted.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
	const char *name;
	int flag;
} kinds[] = {{"uts", CLONE_NEWUTS}, {"ipc", CLONE_NEWIPC},   {"net", CLONE_NEWNET},
	     {"mnt", CLONE_NEWNS},  {"user", CLONE_NEWUSER}, {"pid", CLONE_NEWPID}};
enum { UTS, IPC, NET, MNT, USER, PID, KINDS };

static int own[KINDS];

static int open_own(int kind)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/ns/%s", kinds[kind].name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && ioctl(fd, NS_GET_NSTYPE) == kinds[kind].flag);
	return fd;
}

static ino_t number_of(int fd)
{
	struct stat st;

	CHECK(!fstat(fd, &st));
	return st.st_ino;
}

/* A new one, in which we are. */
static int make(int kind)
{
	CHECK(!unshare(kinds[kind].flag));
	return open_own(kind);
}

static void leave(int kind)
{
	CHECK(!setns(own[kind], kinds[kind].flag));
}

static int held[KINDS], other;

static int holder(void *arg)
{
	struct stat st;
	char text[64];
	int there;

	for (int i = 0; i < KINDS; i++)
		own[i] = open_own(i);
	held[UTS] = make(UTS);
	CHECK(!sethostname("held", 4));
	leave(UTS);
	held[NET] = make(NET);
	test_write("/proc/sys/net/core/somaxconn", "99", 2);
	leave(NET);
	other = open_own(NET);
	held[IPC] = make(IPC);
	leave(IPC);
	/* As `ip netns add` does it. */
	CHECK(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK(!mount("names", "names", "tmpfs", 0, "size=1m"));
	CHECK(!mount(NULL, "names", NULL, MS_SHARED, NULL));
	test_write("names/bound", "", 0);
	CHECK(!unshare(CLONE_NEWNET));
	test_write("/proc/sys/net/core/somaxconn", "55", 2);
	CHECK(!mount("/proc/self/ns/net", "names/bound", NULL, MS_BIND, NULL));
	leave(NET);
	*(volatile int *)arg = 1;
	test_hold();

	if (test_break(1))
		own[NET] = held[NET];
	if (test_break(2))
		CHECK(!umount2("names/bound", MNT_DETACH));
	CHECK_EQUAL(number_of(own[NET]), number_of(other));
	CHECK(number_of(held[NET]) != number_of(other));
	for (int i = 0; i < KINDS; i++)
		if (i != MNT)
			CHECK_EQUAL(number_of(own[i]), number_of(open_own(i)));
	CHECK(!setns(held[UTS], CLONE_NEWUTS));
	CHECK(!gethostname(text, sizeof(text)) && !strcmp(text, "held"));
	CHECK(!setns(held[NET], CLONE_NEWNET));
	test_read("/proc/sys/net/core/somaxconn", text, sizeof(text));
	CHECK_EQUAL(atoi(text), 99);
	CHECK(!setns(held[IPC], CLONE_NEWIPC));
	there = open("names/bound", O_RDONLY);
	CHECK(there >= 0 && ioctl(there, NS_GET_NSTYPE) == CLONE_NEWNET);
	CHECK(!setns(there, CLONE_NEWNET));
	test_read("/proc/sys/net/core/somaxconn", text, sizeof(text));
	CHECK_EQUAL(atoi(text), 55);
	/* The namespace from which it came is that of its parent. */
	CHECK(!setns(own[MNT], CLONE_NEWNS) && !chdir(test_dir()));
	CHECK(stat("names/bound", &st) < 0);
	CHECK(fcntl(held[UTS], F_GETFD) == FD_CLOEXEC);
	return 3;
}

int main(void)
{
	volatile int *ready;
	pid_t pid;

	test_init();
	ready = test_shared(4096);
	CHECK(!mkdir("names", 0755));
	pid = test_fork(holder, (void *)ready);
	while (!*ready)
		usleep(1000);
	test_wait();
	test_reap(pid, 3);
	test_pass();
}
