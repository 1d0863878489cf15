/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces that belong to a user namespace below that of the root: what is in them, who may
 * change it, and whose they are.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	int flag;
} kinds[] = {{"uts", CLONE_NEWUTS},	  {"ipc", CLONE_NEWIPC}, {"net", CLONE_NEWNET},
	     {"cgroup", CLONE_NEWCGROUP}, {"mnt", CLONE_NEWNS},	 {"user", CLONE_NEWUSER}};
enum { UTS, IPC, NET, CGROUP, MNT, USER, KINDS };

static volatile int *ready;

static int own(int kind)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/ns/%s", kinds[kind].name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

static ino_t number_of(int fd)
{
	struct stat st;

	CHECK(fd >= 0 && !fstat(fd, &st));
	return st.st_ino;
}

static bool is_up(const char *name)
{
	struct ifreq req = {};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(req.ifr_name, name);
	CHECK(fd >= 0 && !ioctl(fd, SIOCGIFFLAGS, &req) && !close(fd));
	return req.ifr_flags & IFF_UP;
}

static void set_up(const char *name, bool up)
{
	struct ifreq req = {.ifr_flags = up ? IFF_UP : 0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(req.ifr_name, name);
	CHECK(fd >= 0 && !ioctl(fd, SIOCSIFFLAGS, &req) && !close(fd));
}

static void write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
}

/* Root there is an ordinary user. */
static void enter_user(void)
{
	CHECK(!setresgid(1234, 1234, 1234) && !setresuid(1234, 1234, 1234));
	CHECK(!unshare(CLONE_NEWUSER) && !prctl(PR_SET_DUMPABLE, 1));
	write_to("/proc/self/setgroups", "deny");
	write_to("/proc/self/uid_map", "0 1234 1");
	write_to("/proc/self/gid_map", "0 1234 1");
}

/* ---- a copy of the mounts, with a file system of its own ---- */

static int owner(void *arg)
{
	char name[64], text[64];
	struct stat st;
	int held, fd;

	enter_user();
	CHECK(!unshare(CLONE_NEWUTS) && !sethostname("held", 4));
	held = own(UTS);
	for (int i = 0; i < USER; i++)
		CHECK(!unshare(kinds[i].flag));
	CHECK(!sethostname("inner", 5));
	set_up("lo", true);
	write_to("/proc/sys/kernel/msgmax", "4321");
	CHECK(!mount("mine", "/mnt", "tmpfs", MS_NOSUID, "size=1m,mode=750"));
	CHECK(!mkdir("/mnt/dir", 0700));
	test_write("/mnt/dir/file", "text", 4);
	CHECK(!mount("/mnt/dir", "/mnt/dir", NULL, MS_BIND, NULL));
	CHECK(!mount(NULL, "/mnt/dir", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	fd = open("/mnt/dir/file", O_RDONLY);
	CHECK(fd >= 0);
	ready[0] = 1;
	test_hold();

	if (test_break(1))
		CHECK(!sethostname("x", 1));
	if (test_break(2))
		set_up("lo", false);
	for (int i = 0; i < USER; i++)
		CHECK_EQUAL(number_of(ioctl(own(i), NS_GET_USERNS)), number_of(own(USER)));
	CHECK_EQUAL(number_of(ioctl(held, NS_GET_USERNS)), number_of(own(USER)));
	CHECK(number_of(held) != number_of(own(UTS)));
	CHECK(!gethostname(name, sizeof(name)) && !strcmp(name, "inner"));
	CHECK(is_up("lo"));
	test_read("/proc/sys/kernel/msgmax", text, sizeof(text));
	CHECK_EQUAL(atoi(text), 4321);
	test_read("/mnt/dir/file", text, sizeof(text));
	CHECK(!strcmp(text, "text"));
	CHECK(!stat("/mnt", &st) && (st.st_mode & 07777) == 0750 && st.st_uid == 0);
	CHECK(!stat("/mnt/dir/file", &st) && st.st_uid == 0 && st.st_gid == 0);
	CHECK(read(fd, text, 4) == 4 && !memcmp(text, "text", 4));
	CHECK(open("/mnt/dir/file", O_WRONLY) < 0 && errno == EROFS);
	/* It is root's of here. */
	CHECK(!sethostname("other", 5));
	set_up("lo", false);
	CHECK(!umount2("/mnt/dir", MNT_DETACH));
	test_write("/mnt/dir/file", "more", 4);
	CHECK(!umount2("/mnt", MNT_DETACH));
	/* What came from above is locked. */
	CHECK(umount2("/proc", MNT_DETACH) < 0);
	CHECK(!setns(held, CLONE_NEWUTS) && !gethostname(name, sizeof(name)) &&
	      !strcmp(name, "held"));
	return 11;
}

/* ---- a tree of mounts of its own, with parts of the root's ---- */

static int pivoted(void *arg)
{
	struct stat st;

	enter_user();
	CHECK(!unshare(CLONE_NEWNS));
	CHECK(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK(!mount("new", "/mnt", "tmpfs", 0, NULL) && !chdir("/mnt"));
	for (const char *const *dir = (const char *const[]){"dev", "usr", "proc", "ctl", NULL};
	     *dir; dir++)
		CHECK(!mkdir(*dir, 0755));
	CHECK(!mount("dev", "dev", "tmpfs", 0, NULL));
	CHECK(!close(open("dev/null", O_CREAT | O_WRONLY, 0644)));
	CHECK(!mount("/dev/null", "dev/null", NULL, MS_BIND, NULL));
	CHECK(!mount("/usr", "usr", NULL, MS_BIND | MS_REC, NULL));
	CHECK(!mount("/proc", "proc", NULL, MS_BIND | MS_REC, NULL));
	CHECK(!mount(getenv("TEST_CONTROL"), "ctl", NULL, MS_BIND, NULL));
	CHECK(!syscall(SYS_pivot_root, ".", ".") && !umount2(".", MNT_DETACH) && !chdir("/"));
	test_move_control("/ctl");
	ready[1] = 1;
	test_hold();
	if (test_break(3))
		CHECK(!umount2("/dev/null", MNT_DETACH));
	CHECK(!stat("/dev/null", &st) && S_ISCHR(st.st_mode));
	CHECK(!stat("/usr/bin", &st) && S_ISDIR(st.st_mode));
	CHECK(stat("/etc", &st) < 0);
	CHECK_EQUAL(number_of(ioctl(own(MNT), NS_GET_USERNS)), number_of(own(USER)));
	CHECK(!mkdir("/more", 0700) && !stat("/more", &st) && st.st_uid == 0);
	return 12;
}

int main(void)
{
	pid_t a, b;

	test_init();
	ready = test_shared(4096);
	a = test_fork(owner, NULL);
	b = test_fork(pivoted, NULL);
	while (!ready[0] || !ready[1])
		usleep(1000);
	test_wait();
	test_reap(a, 11);
	test_reap(b, 12);
	test_pass();
}
