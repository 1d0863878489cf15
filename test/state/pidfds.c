/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pidfds: of oneself, a thread, a thread of another, of processes that have gone (by exit and by
 * signal), several of one, of a thread that has gone; flags; held by a child.
 */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIDFD_THREAD O_EXCL /* linux/pidfd.h of 6.9 */

/* Of 6.13; the mask bit 3 is of 6.15. */
struct info {
	uint64_t mask, cgroup;
	uint32_t ids[11];
	int32_t exit_code;
};
#define GET_INFO _IOWR(0xFF, 11, struct info)

static volatile pid_t thread_id;
static bool first_ends, never;
static int parent_fd;

static void *thread(void *arg)
{
	thread_id = (pid_t)syscall(SYS_gettid);
	while (!*(volatile bool *)arg)
		usleep(1000);
	return NULL;
}

static int ended(void *arg)
{
	return 9;
}

static int killed(void *arg)
{
	prctl(PR_SET_DUMPABLE, 0);
	raise(SIGTERM);
	return 0;
}

static int child(void *arg)
{
	test_hold();
	/* That is our parent still. */
	CHECK(!syscall(SYS_pidfd_send_signal, parent_fd, SIGUSR1, NULL, 0));
	return 4;
}

static int open_pid(pid_t pid, unsigned int flags)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, flags);

	CHECKF(fd >= 0 || flags & PIDFD_THREAD, "pidfd_open: %s", strerror(errno));
	return fd;
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

static void check_status(int fd, int status)
{
	struct info info = {.mask = 8};

	CHECK(readable(fd));
	CHECK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) < 0 && errno == ESRCH);
	if (!ioctl(fd, GET_INFO, &info) && info.mask & 8)
		CHECK_EQUAL(info.exit_code, status);
}

static ino_t inode(int fd)
{
	struct stat st;

	CHECK(!fstat(fd, &st));
	return st.st_ino;
}

int main(void)
{
	int of_thread, gone[2], shot, gone_thread, flags;
	bool told;
	pthread_t t;
	sigset_t set;
	pid_t pid, helper;

	test_init();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
	parent_fd = open_pid(getpid(), 0);
	helper = test_fork(child, NULL);
	CHECK(!pthread_create(&t, NULL, thread, &first_ends));
	while (!thread_id)
		usleep(1000);
	gone_thread = open_pid(thread_id, PIDFD_THREAD);
	first_ends = true;
	CHECK(!pthread_join(t, NULL));
	thread_id = 0;
	CHECK(!pthread_create(&t, NULL, thread, &never));
	while (!thread_id)
		usleep(1000);
	of_thread = open_pid(thread_id, PIDFD_THREAD | O_NONBLOCK);
	pid = test_fork(ended, NULL);
	gone[0] = open_pid(pid, 0);
	gone[1] = open_pid(pid, O_NONBLOCK);
	test_reap(pid, 9);
	pid = test_fork(killed, NULL);
	shot = open_pid(pid, 0);
	CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
	/* Before 6.9 all have the inode of anonymous files. */
	told = inode(gone[0]) != inode(shot);
	flags = fcntl(gone_thread, F_GETFL);

	test_wait();
	if (test_break(1)) {
		close(gone[1]);
		gone[1] = dup(shot);
	}
	check_status(gone[0], 9 << 8);
	check_status(gone[1], 9 << 8);
	CHECK(fcntl(gone[1], F_GETFL) & O_NONBLOCK);
	CHECK(!(fcntl(gone[0], F_GETFL) & O_NONBLOCK));
	if (told)
		CHECK(inode(gone[0]) == inode(gone[1]) && inode(gone[0]) != inode(shot));
	check_status(shot, SIGTERM);
	if (gone_thread >= 0) {
		CHECK(readable(gone_thread));
		CHECK_EQUAL(fcntl(gone_thread, F_GETFL), flags);
		CHECK(!readable(of_thread));
		CHECK(fcntl(of_thread, F_GETFL) & O_NONBLOCK);
		CHECK(!syscall(SYS_pidfd_send_signal, of_thread, 0, NULL, 0));
	}
	CHECK(sigtimedwait(&set, NULL, &(struct timespec){30}) == SIGUSR1);
	test_reap(helper, 4);
	test_pass();
}
