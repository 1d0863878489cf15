/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX, flock and OFD locks: held, shared, by parent and child, with a waiter.
 *
 * not-in: both: the locks are held by the original
 */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct flock range(short type, off_t start, off_t len)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
}

static int fd;

static int child(void *arg)
{
	struct flock mine = range(F_WRLCK, 100, 10), waiting = range(F_WRLCK, 0, 1);

	CHECK(!fcntl(fd, F_SETLK, &mine));
	test_write("child-ready", "", 0);
	CHECK(!fcntl(fd, F_SETLKW, &waiting));
	return 8;
}

static void check_held(int by, off_t start, off_t len, short type, pid_t pid)
{
	struct flock l = range(F_WRLCK, start, 1);

	CHECK(!fcntl(by, F_GETLK, &l));
	CHECK_EQUAL(l.l_type, type);
	CHECK_EQUAL(l.l_start, start);
	CHECK_EQUAL(l.l_len, len);
	CHECK_EQUAL(l.l_pid, pid);
}

/* As the description tells it. */
static pid_t flock_owner(int number)
{
	char path[64], line[256];
	pid_t pid = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", number);
	f = fopen(path, "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "FLOCK"))
			CHECK(sscanf(line, "lock: %*s FLOCK %*s %*s %d", &pid) == 1);
	fclose(f);
	return pid;
}

static int observer(void *arg)
{
	pid_t *pids = arg;
	int other = open("file", O_RDWR), flocked = open("flocked", O_RDWR);

	check_held(other, 0, 10, F_WRLCK, pids[0]);
	check_held(other, 20, 5, F_RDLCK, pids[0]);
	check_held(other, 100, 10, F_WRLCK, pids[1]);
	check_held(other, 1000, 0, F_WRLCK, -1);
	CHECK(flock(flocked, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	CHECK_EQUAL(flock_owner(pids[2]), pids[0]);
	return 0;
}

int main(void)
{
	struct flock a = range(F_WRLCK, 0, 10), b = range(F_RDLCK, 20, 5),
		     open_file = range(F_WRLCK, 1000, 0);
	int flocked, ofd;
	pid_t pids[3];

	test_init();
	test_write("file", "0123456789", 10);
	test_write("flocked", "", 0);
	fd = open("file", O_RDWR);
	ofd = open("file", O_RDWR);
	flocked = open("flocked", O_RDONLY);
	CHECK(!fcntl(ofd, F_OFD_SETLK, &open_file));
	CHECK(!flock(flocked, LOCK_EX));
	CHECK(!fcntl(fd, F_SETLK, &a));
	CHECK(!fcntl(fd, F_SETLK, &b));
	pids[0] = getpid();
	pids[2] = flocked;
	pids[1] = test_fork(child, NULL);
	while (access("child-ready", F_OK))
		usleep(1000);
	test_until_in(pids[1], sizeof(long) == 8 ? SYS_fcntl : 221 /* fcntl64 */);

	test_wait();
	if (test_break(1))
		close(ofd);
	test_reap(test_fork(observer, pids), 0);
	a = range(F_UNLCK, 0, 10);
	CHECK(!fcntl(fd, F_SETLK, &a));
	test_reap(pids[1], 8);
	test_pass();
}
