/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks on what is no ordinary file: directories, fifos, pipes, devices, terminals, memfds,
 * sockets, removed files; and an owner for signals that is one thread.
 *
 * not-in: both: the locks are held by the original
 */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define KINDS 9

static int fds[KINDS], others[KINDS];
static const char *const names[KINDS] = {"directory", "fifo",	 "pipe",    "device", "terminal",
					 "memfd",     "removed", "several", "other"};

static int again(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_NOCTTY);
}

static struct flock range(short type, off_t start)
{
	return (struct flock){.l_type = type, .l_start = start, .l_len = 5};
}

static void set_up(void)
{
	struct flock of_process = range(F_WRLCK, 10), of_file = range(F_RDLCK, 30);
	int ends[2];

	CHECK(!mkdir("directory", 0700) && !mkfifo("fifo", 0600) && !pipe(ends));
	fds[0] = open("directory", O_RDONLY | O_DIRECTORY);
	fds[1] = open("fifo", O_RDWR);
	fds[2] = ends[0];
	test_write("plain", "", 0);
	fds[3] = open("/dev/full", O_RDWR);
	fds[4] = posix_openpt(O_RDWR | O_NOCTTY);
	CHECK(fds[4] >= 0 && !unlockpt(fds[4]));
	fds[4] = open(ptsname(fds[4]), O_RDWR | O_NOCTTY);
	fds[5] = memfd_create("memory", 0);
	fds[6] = test_file("removed", 100, 1);
	fds[7] = test_file("several", 100, 2);
	fds[8] = open("plain", O_RDONLY);
	for (int i = 0; i < KINDS; i++) {
		CHECKF(fds[i] >= 0, "%s: %s", names[i], strerror(errno));
		others[i] = again(fds[i], i == 2 ? O_WRONLY : O_RDONLY);
		CHECKF(others[i] >= 0, "%s, again: %s", names[i], strerror(errno));
		if (i != 3 || test_mode_is("tree"))
			CHECKF(!flock(fds[i], LOCK_EX), "%s: %s", names[i], strerror(errno));
	}
	CHECK(!unlink("removed"));
	for (int i = 5; i < 8; i++) {
		CHECK(!fcntl(fds[i], F_SETLK, &of_process));
		CHECK(!fcntl(fds[i], F_OFD_SETLK, &of_file));
	}
}

static int observer(void *arg)
{
	for (int i = 0; i < KINDS; i++) {
		struct flock a = range(F_WRLCK, 10), b = range(F_WRLCK, 30);

		if (i == 3 && !test_mode_is("tree"))
			continue;
		CHECKF(flock(others[i], LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK,
		       "%s is not locked", names[i]);
		if (i < 5 || i > 7)
			continue;
		CHECK(!fcntl(others[i], F_GETLK, &a) && !fcntl(others[i], F_GETLK, &b));
		CHECKF(a.l_type == F_WRLCK && a.l_pid == getppid() && a.l_start == 10,
		       "%s: the lock of the process is %d, of %d", names[i], a.l_type, a.l_pid);
		CHECKF(b.l_type == F_RDLCK && b.l_pid == -1 && b.l_start == 30,
		       "%s: the lock of the description is %d, of %d", names[i], b.l_type, b.l_pid);
	}
	return 3;
}

int main(void)
{
	struct f_owner_ex owner = {.type = F_OWNER_TID, .pid = getpid()};
	int ends[2];

	test_init();
	set_up();
	CHECK(!pipe(ends));
	CHECK(!fcntl(ends[0], F_SETOWN_EX, &owner));

	test_wait();
	if (test_break(1))
		CHECK(!flock(fds[0], LOCK_UN));
	if (test_break(2))
		CHECK(!flock(fds[6], LOCK_UN));
	test_reap(test_fork(observer, NULL), 3);
	CHECK(!fcntl(ends[0], F_GETOWN_EX, &owner));
	CHECK_EQUAL(owner.type, F_OWNER_TID);
	CHECK_EQUAL(owner.pid, getpid());
	test_pass();
}
