/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many tables that begin as copies of one: what differs from table to table is which descriptors
 * exec closes, which locks the table has, and where a number leads to.
 *
 * not-in: both: the locks are held by the original
 */
#include "harness.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CHILDREN 6
#define FDS	 8
#define REPLACED 2 /* whose descriptor 70 is another file */
#define WRITER	 3
#define READER	 4
#define WITHOUT	 5 /* the file that has locks */

static int fds[FDS];
static volatile int *ready, *go;

static bool closed_by_exec(int child, int i)
{
	return (0x2d >> (child + 2 * i) % 6) & 1;
}

static void lock(int fd, short type, off_t start)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 10};

	CHECK(!fcntl(fd, F_SETLK, &l));
}

/* Who has a lock there; 0: nobody else. */
static pid_t locked_by(off_t start, short type)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 10};

	CHECK(!fcntl(fds[6], F_GETLK, &l));
	if (l.l_type == F_UNLCK)
		return 0;
	CHECK_EQUAL(l.l_type, type);
	CHECK_EQUAL(l.l_start, start);
	CHECK_EQUAL(l.l_len, 10);
	return l.l_pid;
}

static int child(void *arg)
{
	int self = (int)(intptr_t)arg, n = self == WITHOUT ? FDS - 2 : FDS;

	if (self == REPLACED) {
		int other = open("data", O_RDONLY);

		CHECK_EQUAL(dup2(other, 70), 70);
		CHECK_EQUAL(lseek(70, 55, SEEK_SET), 55);
		close(other);
	}
	for (int i = n; i < FDS; i++)
		close(fds[i]);
	for (int i = 0; i < n; i++)
		CHECK(!fcntl(fds[i], F_SETFD, closed_by_exec(self, i) ? FD_CLOEXEC : 0));
	if (self == WRITER)
		lock(fds[6], F_WRLCK, 10);
	if (self == READER)
		lock(fds[7], F_RDLCK, 30);
	ready[self] = 1;
	test_hold();
	if (self == 1 && test_break(1))
		fcntl(fds[3], F_SETFD, closed_by_exec(self, 3) ? 0 : FD_CLOEXEC);
	if (self == WRITER && test_break(2))
		lock(fds[6], F_UNLCK, 10);
	for (int i = 0; i < n; i++)
		CHECK_EQUAL(fcntl(fds[i], F_GETFD), closed_by_exec(self, i) ? FD_CLOEXEC : 0);
	for (int i = n; i < FDS; i++)
		CHECK(fcntl(fds[i], F_GETFD) < 0);
	if (self == 0)
		CHECK_EQUAL(lseek(fds[0], 777, SEEK_SET), 777);
	ready[self] = 2;
	while (!*go)
		usleep(1000);
	CHECK_EQUAL(lseek(70, 0, SEEK_CUR), self == REPLACED ? 55 : 777);
	CHECK_EQUAL(lseek(130, 0, SEEK_CUR), 777);
	return self;
}

static void until(int state)
{
	for (int i = 0; i < CHILDREN; i++)
		while (ready[i] < state)
			usleep(1000);
}

int main(void)
{
	pid_t pids[CHILDREN];
	int unlocked = 0;

	test_init();
	ready = test_shared(4096);
	go = ready + CHILDREN;
	fds[0] = test_file("data", 1000, 1);
	fds[1] = open("data", O_RDWR);
	CHECK_EQUAL(fds[2] = dup2(fds[0], 70), 70);
	CHECK_EQUAL(fds[3] = dup2(fds[0], 130), 130);
	CHECK((fds[4] = posix_openpt(O_RDWR | O_NOCTTY)) >= 0);
	CHECK(!ioctl(fds[4], TIOCSPTLCK, &unlocked));
	/* its description has the flag, too */
	CHECK((fds[5] = ioctl(fds[4], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) >= 0);
	fds[6] = test_file("locked", 1000, 2);
	CHECK_EQUAL(fds[7] = dup2(fds[6], 200), 200);
	for (int i = 0; i < CHILDREN; i++)
		pids[i] = test_fork(child, (void *)(intptr_t)i);
	until(1);
	test_wait();
	until(2);
	CHECK_EQUAL(locked_by(10, F_WRLCK), pids[WRITER]);
	CHECK_EQUAL(locked_by(20, 0), 0);
	CHECK_EQUAL(locked_by(30, F_RDLCK), pids[READER]);
	CHECK_EQUAL(lseek(fds[1], 0, SEEK_CUR), 0);
	CHECK_EQUAL(lseek(70, 0, SEEK_CUR), 777);
	*go = 1;
	for (int i = 0; i < CHILDREN; i++)
		test_reap(pids[i], i);
	test_pass();
}
