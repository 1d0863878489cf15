/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pid namespaces that belong to user namespaces below that of the root, inside of one another and
 * side by side: who is called what there, whose they are, and who may be who in them.
 *
 * needs: root
 */
#include "places.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	MAKER,
	MAPPED,
	FIRST,
	WORKER,
	THREAD,
	OTHER,
	SHARER,
	LEADER,
	INNER,
	LEAF,
	BESIDE,
	LAST,
	PLACES
};

static void write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
}

static void map(pid_t pid, const char *ids)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	write_to(path, ids);
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	write_to(path, ids);
}

static ino_t number_of(int fd)
{
	struct stat st;

	CHECK(fd >= 0 && !fstat(fd, &st) && !close(fd));
	return st.st_ino;
}

static int own(const char *kind)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/ns/%s", kind);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* The pid namespace that we are in belongs to the user namespace that we are in. */
static void check_owner(void)
{
	int fd = own("pid");

	CHECK(fd >= 0);
	CHECK_EQUAL(number_of(ioctl(fd, NS_GET_USERNS)), number_of(own("user")));
	CHECK(!close(fd));
}

/* ---- inside ---- */

static void *other_ids(void *arg)
{
	CHECK(!syscall(SYS_setresgid, 4, 5, 4) && !syscall(SYS_setresuid, 3, 3, 0));
	shared[THREAD] = (pid_t)syscall(SYS_gettid);
	test_hold();
	if (test_break(4))
		CHECK(!syscall(SYS_setresuid, 0, 0, 0));
	CHECK_EQUAL(syscall(SYS_geteuid), 3);
	CHECK_EQUAL(syscall(SYS_getegid), 5);
	CHECK_EQUAL(syscall(SYS_gettid), shared[THREAD]);
	return NULL;
}

static int worker(void *arg)
{
	pthread_t thread;

	CHECK(!pthread_create(&thread, NULL, other_ids, NULL));
	await(THREAD);
	ready(WORKER);
	CHECK_EQUAL(getpid(), shared[WORKER]);
	CHECK_EQUAL(getppid(), 1);
	CHECK_EQUAL(geteuid(), 0);
	CHECK(!pthread_join(thread, NULL));
	check_owner();
	return 21;
}

static int other(void *arg)
{
	CHECK(!syscall(SYS_setresgid, 7, 7, 7) && !syscall(SYS_setresuid, 5, 5, 5));
	CHECK(!prctl(PR_SET_DUMPABLE, 1));
	ready(OTHER);
	CHECK(getuid() == 5 && getgid() == 7 && getpid() == shared[OTHER]);
	CHECK(setuid(0) < 0);
	return 22;
}

static int sharer(void *arg)
{
	ready(SHARER);
	if (test_break(3))
		CHECK(!unshare(CLONE_FS));
	CHECK(!chdir("/usr"));
	return 23;
}

static int leader(void *arg)
{
	CHECK(setsid() == getpid());
	ready(LEADER);
	CHECK(getsid(0) == getpid() && getpgid(0) == getpid() && getpid() == shared[LEADER]);
	return 24;
}

static int leaf(void *arg)
{
	ready(LEAF);
	if (test_break(2))
		CHECK(!unshare(CLONE_NEWUSER));
	CHECK(getpid() == 2 && getppid() == 1 && shared[LEAF] == 2);
	check_owner();
	return 26;
}

static int inner(void *arg)
{
	pid_t pid;

	await(INNER);
	CHECK(!prctl(PR_SET_DUMPABLE, 1));
	pid = make(leaf, NULL, 0);
	await(LEAF);
	say(MAPPED);
	test_hold();
	CHECK_EQUAL(getpid(), 1);
	CHECK_EQUAL(pid, 2);
	check_owner();
	test_reap(pid, 26);
	return 25;
}

static int nobody(void *arg)
{
	pause();
	return 0;
}

static int first(void *arg)
{
	char path[64], text[4096];
	pid_t pid[5], gone;
	siginfo_t info;
	int fd;

	CHECK(!mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
	pid[0] = make(worker, NULL, 0);
	pid[1] = make(other, NULL, 0);
	pid[2] = make(sharer, NULL, CLONE_FS);
	pid[3] = make(leader, NULL, 0);
	pid[4] = make(inner, NULL, CLONE_NEWUSER | CLONE_NEWPID);
	map(pid[4], "0 0 1");
	say(INNER);
	for (int i = WORKER; i <= LEAF; i++)
		await(i);
	gone = test_fork(nobody, NULL);
	kill(gone, SIGKILL);
	CHECK(!waitid(P_PID, (id_t)gone, &info, WEXITED | WNOWAIT));
	snprintf(path, sizeof(path), "/proc/%d/status", pid[0]);
	fd = open(path, O_RDONLY);
	CHECK(fd >= 0);
	ready(FIRST);

	if (test_break(1))
		CHECK(!unshare(CLONE_NEWUSER));
	CHECK_EQUAL(getpid(), 1);
	check_owner();
	CHECK(read(fd, text, sizeof(text)) > 0);
	snprintf(path, sizeof(path), "\nPid:\t%d\n", pid[0]);
	CHECK(strstr(text, path));
	CHECK(waitpid(gone, &fd, 0) == gone && WIFSIGNALED(fd));
	test_reap(pid[2], 23);
	CHECK(getcwd(text, sizeof(text)) && !strcmp(text, "/usr"));
	test_reap(pid[0], 21);
	test_reap(pid[1], 22);
	test_reap(pid[3], 24);
	test_reap(pid[4], 25);
	/* It belongs to who is root here. */
	CHECK(!mount("proc", "/proc", "proc", 0, NULL) && !umount2("/proc", MNT_DETACH));
	/* Its end is that of all others. */
	await(LAST);
	return 20;
}

/* ---- outside ---- */

static int newcomer(void *arg)
{
	char a[64] = "", b[64] = "";

	CHECK(getpid() > 1 && getppid() == 0);
	CHECK(readlink("/proc/self/ns/pid", a, sizeof(a) - 1) > 0);
	CHECK(readlink("/proc/1/ns/pid", b, sizeof(b) - 1) > 0 && !strcmp(a, b));
	return 29;
}

static int maker(void *arg)
{
	pid_t pid;

	CHECK(!unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID));
	CHECK(!prctl(PR_SET_DUMPABLE, 1));
	say(MAKER);
	await(PLACES);
	CHECK(!setresgid(0, 0, 0) && !setresuid(0, 0, 0) && !prctl(PR_SET_DUMPABLE, 1));
	CHECK(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	pid = make(first, NULL, 0);
	await(FIRST);
	say(MAPPED);
	test_hold();
	test_reap(make(newcomer, NULL, 0), 29);
	say(LAST);
	test_reap(pid, 20);
	return 10;
}

static int child(void *arg)
{
	CHECK(getpid() > 1 && getppid() == 1);
	check_owner();
	return 12;
}

static int beside(void *arg)
{
	await(PLACES);
	ready(BESIDE);
	CHECK(getpid() == 1 && getuid() == 0);
	check_owner();
	test_reap(make(child, NULL, 0), 12);
	return 11;
}

int main(void)
{
	pid_t pid[2];

	test_init();
	shared = test_shared(4096);
	pid[0] = make(maker, NULL, 0);
	pid[1] = make(beside, NULL, CLONE_NEWUSER | CLONE_NEWPID);
	await(MAKER);
	map(pid[0], "0 1234 1\n1 2000 100");
	map(pid[1], "0 0 10");
	say(PLACES);
	await(FIRST);
	await(BESIDE);
	test_wait();
	test_reap(pid[0], 10);
	test_reap(pid[1], 11);
	test_pass();
}
