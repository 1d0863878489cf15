/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A /proc of a pid namespace below that of the root, with what is mounted on it and what is open
 * there: it shows the same processes by the same numbers.
 *
 * needs: root
 */
#include "places.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DERIVED, COPY, MEMBER, CONFINED, PLACES };

static int processes(const char *proc)
{
	DIR *dir = opendir(proc);
	struct dirent *d;
	int n = 0;

	CHECK(dir);
	while ((d = readdir(dir)))
		n += atoi(d->d_name) > 0;
	closedir(dir);
	return n;
}

static void check_self(const char *proc, int n)
{
	char path[64], link[64];
	ssize_t len;

	snprintf(path, sizeof(path), "%s/self", proc);
	len = readlink(path, link, sizeof(link) - 1);
	CHECK(len > 0);
	link[len] = '\0';
	CHECKF(atoi(link) == getpid(), "%s is %s, not %d", path, link, getpid());
	if (n)
		CHECK_EQUAL(processes(proc), n);
}

static void begin(void)
{
	CHECK(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

static int member(void *arg)
{
	ready(MEMBER);
	return 3;
}

/* A copy of the mounts, with a directory open in that /proc. */
static int copy(void *arg)
{
	struct statfs fs;

	CHECK(!unshare(CLONE_NEWNS));
	begin();
	CHECK(!mount("mine", "own", "tmpfs", 0, NULL));
	ready(COPY);
	check_self("/proc", 0); /* who is left depends on who is faster */
	CHECK(!statfs("/proc/sys", &fs) && (fs.f_flags & MS_RDONLY));
	return 4;
}

static int derived(void *arg)
{
	char path[64], text[4096];
	struct stat st;
	struct statfs fs;
	pid_t pid[2];
	int fd, self;

	begin();
	CHECK(!mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
	CHECK(!mount("/proc/sys", "/proc/sys", NULL, MS_BIND, NULL));
	CHECK(!mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	pid[0] = make(member, NULL, 0);
	await(MEMBER);
	pid[1] = make(copy, NULL, 0);
	await(COPY);
	CHECK(!mount("/dev/null", "/proc/interrupts", NULL, MS_BIND, NULL));
	snprintf(path, sizeof(path), "/proc/%d/status", pid[0]);
	fd = open(path, O_RDONLY);
	self = open("/proc/self/task", O_RDONLY | O_DIRECTORY);
	snprintf(path, sizeof(path), "/proc/%d", pid[0]);
	CHECK(fd >= 0 && self >= 0 && !chdir(path));
	ready(DERIVED);
	if (test_break(1))
		CHECK(!umount2("/proc", MNT_DETACH));
	check_self("/proc", 3);
	test_read("status", text, sizeof(text));
	snprintf(path, sizeof(path), "\nPid:\t%d\n", pid[0]);
	CHECK(strstr(text, path));
	CHECK(read(fd, text, sizeof(text)) > 0 && strstr(text, path));
	CHECK(!faccessat(self, "1/status", F_OK, 0));
	CHECK(!statfs("/proc/sys", &fs) && (fs.f_flags & MS_RDONLY));
	CHECK(!stat("/proc/interrupts", &st) && S_ISCHR(st.st_mode));
	test_reap(pid[0], 3);
	test_reap(pid[1], 4);
	return 5;
}

/* A root of its own, as bubblewrap makes it. */
static int confined(void *arg)
{
	const char *control = getenv("TEST_CONTROL");

	begin();
	CHECK(!mount("root", "jail", "tmpfs", 0, "size=1m"));
	CHECK(!mkdir("jail/control", 0755) && !mkdir("jail/proc", 0755));
	CHECK(!mount(control, "jail/control", NULL, MS_BIND, NULL));
	CHECK(!mount("proc", "jail/proc", "proc", 0, "hidepid=2"));
	CHECK(!chdir("jail") && !syscall(SYS_pivot_root, ".", "."));
	CHECK(!umount2(".", MNT_DETACH) && !chdir("/"));
	test_move_control("/control");
	ready(CONFINED);
	if (test_break(2))
		CHECK(!umount("/proc"));
	check_self("/proc", 1);
	return 6;
}

int main(void)
{
	pid_t pid[2];
	int outside;

	test_init();
	shared = test_shared(4096);
	CHECK(!mkdir("own", 0755) && !mkdir("jail", 0755));
	pid[0] = make(derived, NULL, CLONE_NEWPID | CLONE_NEWNS);
	await(DERIVED);
	pid[1] = make(confined, NULL, CLONE_NEWPID | CLONE_NEWNS);
	await(CONFINED);
	test_wait();
	outside = processes("/proc");
	CHECKF(outside > 3, "%d processes outside", outside);
	test_reap(pid[0], 5);
	test_reap(pid[1], 6);
	test_pass();
}
