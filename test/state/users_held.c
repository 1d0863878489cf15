/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces that belong to a user namespace below that of the root, of which nobody has more than
 * a descriptor of one of those: no process is in any of them.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
	const char *name;
	int flag;
} kinds[] = {{"uts", CLONE_NEWUTS}, {"net", CLONE_NEWNET}, {"ipc", CLONE_NEWIPC}};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static volatile int *ready;

static void write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
}

/* Each of its own, so that each brings its owner along. */
static int make(void *arg)
{
	const size_t i = *(const size_t *)arg;

	CHECK(!setresgid(1234, 1234, 1234) && !setresuid(1234, 1234, 1234));
	CHECK(!unshare(CLONE_NEWUSER | kinds[i].flag) && !prctl(PR_SET_DUMPABLE, 1));
	write_to("/proc/self/setgroups", "deny");
	write_to("/proc/self/uid_map", "0 1234 1");
	write_to("/proc/self/gid_map", "0 1234 1");
	if (kinds[i].flag == CLONE_NEWUTS)
		CHECK(!sethostname("held", 4));
	if (kinds[i].flag == CLONE_NEWIPC)
		write_to("/proc/sys/kernel/msgmax", "4321");
	ready[i] = 1;
	while (ready[i] != 2)
		usleep(1000);
	return 0;
}

static int open_of(pid_t pid, const char *kind)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kind);
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

int main(void)
{
	int fds[KINDS];
	uid_t owner;
	char text[64];

	test_init();
	ready = test_shared(4096);
	for (size_t i = 0; i < KINDS; i++) {
		pid_t pid = test_fork(make, &i);

		while (!ready[i])
			usleep(1000);
		fds[i] = open_of(pid, kinds[i].name);
		ready[i] = 2;
		test_reap(pid, 0);
	}
	test_wait();
	if (test_break(1))
		CHECK(dup2(fds[1], fds[0]) == fds[0]);
	if (test_break(2))
		CHECK(!setns(fds[0], CLONE_NEWUTS) && !sethostname("x", 1));
	for (size_t i = 0; i < KINDS; i++) {
		int user = ioctl(fds[i], NS_GET_USERNS);

		CHECK_EQUAL(ioctl(fds[i], NS_GET_NSTYPE), kinds[i].flag);
		CHECK(user >= 0 && !ioctl(user, NS_GET_OWNER_UID, &owner));
		CHECK_EQUAL(owner, 1234);
		for (size_t j = 0; j < i; j++)
			CHECK(number_of(user) != number_of(ioctl(fds[j], NS_GET_USERNS)));
		CHECK(!setns(fds[i], kinds[i].flag));
	}
	CHECK(!gethostname(text, sizeof(text)) && !strcmp(text, "held"));
	test_read("/proc/sys/kernel/msgmax", text, sizeof(text));
	CHECK(!strncmp(text, "4321\n", 5));
	test_pass();
}
