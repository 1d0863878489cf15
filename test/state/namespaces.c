/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks in namespaces of their own, below a root that is not in them: each is the same again for
 * all who were in it, with what was in it.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int *shared; /* who has come how far */
static char outside_name[65];

static void ready(int i)
{
	shared[i] = 1;
	test_hold();
}

static void await(int i)
{
	while (!shared[i])
		usleep(1000);
}

static void namespace_of(pid_t pid, const char *kind, char *link)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kind);
	n = readlink(path, link, 63);
	CHECK(n > 0);
	link[n] = '\0';
}

static bool same(pid_t a, pid_t b, const char *kind)
{
	char x[64], y[64];

	namespace_of(a, kind, x);
	namespace_of(b, kind, y);
	return !strcmp(x, y);
}

static void private_mounts(void)
{
	CHECK(!unshare(CLONE_NEWNS));
	CHECK(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

/* In the same mount namespace as its parent: what one writes the other reads. */
static int second(void *arg)
{
	char text[64];

	ready(1);
	await(7);
	test_read("own/new", text, sizeof(text));
	CHECK(!strcmp(text, "written by the first"));
	return 5;
}

/* A service with a directory of its own: files there, open, removed, the working directory. */
static int service(void *arg)
{
	struct stat above, below;
	char text[400];
	int fd, removed, dir;
	pid_t pid;

	private_mounts();
	CHECK(!mount("mine", "own", "tmpfs", MS_NOEXEC, "size=4m,mode=0751"));
	CHECK(!mkdir("own/sub", 0700) && !mkdir("own/sub/deeper", 0700));
	test_write("own/sub/file", "private", 7);
	fd = open("own/sub/file", O_RDWR);
	removed = open("own/sub/gone", O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0 && removed >= 0 && write(removed, "still", 5) == 5);
	CHECK(!unlink("own/sub/gone"));
	CHECK(!mount("own/sub", "bound", NULL, MS_BIND, NULL));
	CHECK(!mount(NULL, "bound", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	CHECK(!mount("/dev/null", "file", NULL, MS_BIND, NULL));
	dir = open("own/sub/deeper", O_RDONLY | O_DIRECTORY);
	CHECK(dir >= 0);
	pid = test_fork(second, NULL);
	await(1);
	ready(0);
	if (test_break(1))
		CHECK(!umount2("own", MNT_DETACH));
	CHECK(same(pid, getpid(), "mnt"));
	test_write("own/new", "written by the first", 20);
	shared[7] = 1;
	test_reap(pid, 5);
	test_read("own/sub/file", text, sizeof(text));
	CHECK(!strcmp(text, "private"));
	CHECK(write(fd, "PRI", 3) == 3);
	test_read("bound/file", text, sizeof(text));
	CHECK(!strcmp(text, "PRIvate"));
	CHECK(open("bound/no", O_WRONLY | O_CREAT, 0600) < 0 && errno == EROFS);
	CHECK(pread(removed, text, 10, 0) == 5 && !memcmp(text, "still", 5));
	CHECK(!stat("file", &above) && S_ISCHR(above.st_mode) && above.st_rdev == 0x103);
	CHECK(!stat("own", &above) && (above.st_mode & 07777) == 0751);
	CHECK(!fstat(dir, &above) && !stat("own/sub/deeper", &below));
	CHECK(above.st_ino == below.st_ino && above.st_dev == below.st_dev);
	CHECK(!fchdir(dir) && getcwd(text, sizeof(text)));
	CHECKF(strstr(text, "/own/sub/deeper"), "the working directory is %s", text);
	return 3;
}

/* A root of its own, as bubblewrap makes it. */
static int confined(void *arg)
{
	const char *control = getenv("TEST_CONTROL");
	char text[64];
	int out, fd;

	out = open("outside", O_RDONLY);
	private_mounts();
	CHECK(!mount("root", "jail", "tmpfs", 0, "size=1m"));
	CHECK(!mkdir("jail/control", 0755) && !mkdir("jail/proc", 0755) && !mkdir("jail/a", 0755));
	CHECK(!mount(control, "jail/control", NULL, MS_BIND, NULL));
	CHECK(!mount("proc", "jail/proc", "proc", 0, NULL));
	CHECK(out >= 0 && !chdir("jail") && !syscall(SYS_pivot_root, ".", "."));
	CHECK(!umount2(".", MNT_DETACH) && !chdir("/a"));
	test_write("/a/file", "inside", 6);
	fd = open("file", O_RDONLY);
	CHECK(fd >= 0);
	test_move_control("/control");
	ready(2);
	CHECK(access("/etc", F_OK) < 0 && errno == ENOENT);
	test_read("/a/file", text, sizeof(text));
	CHECK(!strcmp(text, "inside"));
	CHECK(read(fd, text, 10) == 6);
	CHECK(getcwd(text, sizeof(text)) && !strcmp(text, "/a"));
	/* of the root's mount namespace */
	CHECK(read(out, text, 10) == 7 && !memcmp(text, "outside", 7));
	CHECK(!access("/proc/self/ns/mnt", F_OK));
	return 4;
}

static void set_name(const char *name)
{
	CHECK(!unshare(CLONE_NEWUTS) && !sethostname(name, strlen(name)));
}

static void check_name(const char *name)
{
	char text[65];

	CHECK(!gethostname(text, sizeof(text)));
	CHECKF(!strcmp(text, name), "the name is %s, not %s", text, name);
}

static void *named_thread(void *arg)
{
	set_name("thread");
	ready(3);
	check_name("thread");
	return NULL;
}

/* Went there and came back, while its child stayed. */
static int left_behind(void *arg)
{
	close(*(int *)arg);
	ready(4);
	check_name("child");
	CHECK(!setdomainname("changed", 7));
	await(8);
	return 6;
}

static int names(void *arg)
{
	int back = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
	pthread_t thread;
	char text[65];
	pid_t pid;

	CHECK(back >= 0);
	set_name("child");
	CHECK(!setdomainname("domain", 6));
	pid = test_fork(left_behind, &back);
	await(4);
	CHECK(!pthread_create(&thread, NULL, named_thread, NULL));
	await(3);
	CHECK(!setns(back, CLONE_NEWUTS) && !close(back));
	ready(5);
	if (test_break(2))
		set_name("wrong");
	check_name(outside_name);
	CHECK(!same(pid, getpid(), "uts") && same(getppid(), getpid(), "uts"));
	shared[8] = 1;
	test_reap(pid, 6);
	CHECK(!pthread_join(thread, NULL));
	CHECK(!getdomainname(text, sizeof(text)) && strcmp(text, "changed"));
	return 7;
}

static int settings(void *arg)
{
	char text[64];

	CHECK(!unshare(CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP));
	test_write("/proc/sys/kernel/msgmax", "7777", 4);
	test_write("/proc/sys/net/core/somaxconn", "77", 2);
	ready(6);
	if (test_break(3))
		CHECK(!unshare(CLONE_NEWIPC));
	CHECK(!same(getppid(), getpid(), "ipc") && !same(getppid(), getpid(), "net"));
	CHECK(!same(getppid(), getpid(), "cgroup") && same(getppid(), getpid(), "mnt"));
	test_read("/proc/sys/kernel/msgmax", text, sizeof(text));
	CHECK_EQUAL(atoi(text), 7777);
	test_read("/proc/sys/net/core/somaxconn", text, sizeof(text));
	CHECK_EQUAL(atoi(text), 77);
	return 8;
}

int main(void)
{
	static int (*const children[])(void *) = {service, confined, names, settings};
	static const int last[] = {0, 2, 5, 6}, status[] = {3, 4, 7, 8};
	char text[64];
	pid_t pid[4];

	test_init();
	shared = test_shared(4096);
	CHECK(!gethostname(outside_name, sizeof(outside_name)));
	CHECK(!mkdir("own", 0755) && !mkdir("bound", 0755) && !mkdir("jail", 0755));
	test_write("file", "", 0);
	test_write("outside", "outside", 7);
	for (int i = 0; i < 4; i++) {
		pid[i] = test_fork(children[i], NULL);
		await(last[i]);
	}
	test_wait();
	check_name(outside_name);
	CHECK(access("own/sub", F_OK) < 0 && errno == ENOENT);
	test_read("/proc/sys/kernel/msgmax", text, sizeof(text));
	CHECK(atoi(text) != 7777);
	for (int i = 0; i < 4; i++)
		test_reap(pid[i], status[i]);
	test_pass();
}
