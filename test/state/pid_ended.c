/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pid namespaces whose first process has ended: that of the next children of a task (unshare --pid
 * without --fork), which can have none, one that only a descriptor holds, or a file, one in another
 * pid namespace, and one that a user namespace owns.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum who { PLAIN, OWNED, INSIDE, ON_FILE, MAKERS };
static struct {
	volatile bool made[MAKERS];
} * shared;

#define NEXT "/proc/self/ns/pid_for_children"

static int nothing(void *arg)
{
	return 0;
}

static ino_t number(const char *path)
{
	struct stat st;

	CHECKF(!stat(path, &st), "%s: %s", path, strerror(errno));
	return st.st_ino;
}

static ino_t number_of(int fd)
{
	struct stat st;

	CHECK(fd >= 0 && !fstat(fd, &st));
	return st.st_ino;
}

static void make(int flags)
{
	CHECK(!unshare(flags | CLONE_NEWPID));
	test_reap(test_fork(nothing, NULL), 0);
}

static void check_ended(void)
{
	CHECK(fork() < 0);
	CHECK_EQUAL(errno, ENOMEM);
}

static void check_relatives(int fd)
{
	int own = open("/proc/self/ns/pid", O_RDONLY);

	CHECK_EQUAL(number_of(ioctl(fd, NS_GET_PARENT)), number_of(own));
	CHECK_EQUAL(number_of(ioctl(fd, NS_GET_USERNS)), number("/proc/self/ns/user"));
	close(own);
}

static int holder(void *arg)
{
	enum who who = (enum who)(intptr_t)arg;
	int fd, own = open("/proc/self/ns/pid", O_RDONLY);

	make(who == OWNED ? CLONE_NEWUSER : 0);
	fd = open(NEXT, O_RDONLY);
	CHECK(fd >= 0);
	if (who == ON_FILE) {
		CHECK(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
		CHECK(!mount("names", "names", "tmpfs", 0, "size=1m"));
		test_write("names/bound", "", 0);
		CHECK(!mount(NEXT, "names/bound", NULL, MS_BIND, NULL));
	}
	shared->made[who] = true;
	test_hold();
	if (test_break(1) && who != OWNED)
		CHECK(!setns(own, CLONE_NEWPID));
	if (test_break(2) && who == ON_FILE)
		CHECK(!umount("names/bound"));
	check_ended();
	check_relatives(fd);
	CHECK_EQUAL(number_of(fd), number(NEXT));
	if (who == ON_FILE)
		CHECK_EQUAL(number("names/bound"), number_of(fd));
	/* Its own belongs to somebody else. */
	if (who == OWNED)
		return 0;
	CHECK(!setns(own, CLONE_NEWPID));
	test_reap(test_fork(nothing, NULL), 0);
	CHECK(!setns(fd, CLONE_NEWPID));
	check_ended();
	return 0;
}

int main(void)
{
	pid_t pids[MAKERS];
	int fd, own, status;

	test_init();
	shared = test_shared(sizeof(*shared));
	CHECK(!mkdir("names", 0755));
	own = open("/proc/self/ns/pid", O_RDONLY);
	make(0);
	fd = open(NEXT, O_RDONLY);
	CHECK(fd >= 0);
	/* not before Linux 6.11 */
	if (ioctl(fd, _IOR(0xb7, 0x6, int), 1) < 0 && errno == ENOTTY)
		test_skip("nothing tells that a pid namespace has ended");
	CHECK(!setns(own, CLONE_NEWPID) && !close(own));
	for (int i = 0; i < MAKERS; i++) {
		if (i == INSIDE)
			CHECK(!unshare(CLONE_NEWPID));
		pids[i] = test_fork(holder, (void *)(intptr_t)i);
		if (i != INSIDE)
			continue;
		own = open("/proc/self/ns/pid", O_RDONLY);
		CHECK(!setns(own, CLONE_NEWPID) && !close(own));
	}
	for (int i = 0; i < MAKERS; i++)
		while (!shared->made[i])
			usleep(1000);
	test_wait();
	if (test_break(3))
		fd = open("/proc/self/ns/pid", O_RDONLY);
	check_relatives(fd);
	for (int i = 0; i < MAKERS; i++) {
		CHECK_EQUAL(waitpid(pids[i], &status, 0), pids[i]);
		CHECK_EQUAL(status, 0);
	}
	CHECK(!setns(fd, CLONE_NEWPID));
	check_ended();
	test_pass();
}
