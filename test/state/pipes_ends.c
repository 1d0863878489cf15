/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pipes: packets mixed with other bytes, ends reopened through /proc, loops between processes,
 * readers and writers that wait, owners of signals; fifos that are waited for, and removed ones.
 *
 * not-in: both: the fifo with a name is one for all
 */
#include "full_pipe.h"
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int mixed[2], single[2], ring[2][2], slow[2], full[2];

/* Sends what it reads once around. */
static int around(void *arg)
{
	int n;

	CHECK_EQUAL(read(ring[0][0], &n, sizeof(n)), (ssize_t)sizeof(n));
	n++;
	CHECK_EQUAL(write(ring[1][1], &n, sizeof(n)), (ssize_t)sizeof(n));
	return 3;
}

static int reader(void *arg)
{
	char buf[8];

	CHECK_EQUAL(read(slow[0], buf, sizeof(buf)), 5);
	CHECK(!memcmp(buf, "hello", 5));
	return 4;
}

static int writer(void *arg)
{
	CHECK_EQUAL(write(full[1], "end", 3), 3);
	return 5;
}

static int opener(void *arg)
{
	/* Nobody reads yet. */
	int fd = open("fifo", O_WRONLY);

	CHECK_EQUAL(write(fd, "opened", 6), 6);
	return 6;
}

static int reopen(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, flags);
	CHECK(fd >= 0);
	return fd;
}

static void packets(int fd, bool on)
{
	CHECK(!fcntl(fd, F_SETFL, on ? O_DIRECT : 0));
}

/* Into a buffer to which no write adds. */
static void put(int fd, const char *text)
{
	size_t len = strlen(text);
	int other[2];

	CHECK(!pipe(other));
	CHECK_EQUAL(write(other[1], text, len), (ssize_t)len);
	CHECK_EQUAL(tee(other[0], fd, len, 0), (ssize_t)len);
	close(other[0]);
	close(other[1]);
}

static void expect(int fd, size_t room, const char *text)
{
	char buf[64];
	ssize_t n = read(fd, buf, room);

	CHECKF(n == (ssize_t)strlen(text) && !memcmp(buf, text, n), "'%.*s' instead of '%s'",
	       (int)(n < 0 ? 0 : n), buf, text);
}

int main(void)
{
	int again, both, packed, gone, number = 1;
	struct f_owner_ex owner;
	struct pollfd p;
	pid_t pids[4];

	test_init();
	CHECK(!pipe(mixed) && !pipe(single) && !pipe(ring[0]) && !pipe(ring[1]) && !pipe(slow) &&
	      !pipe(full));
	put(mixed[1], "plain");
	packets(mixed[1], true);
	CHECK_EQUAL(write(mixed[1], "packet", 6), 6);
	CHECK_EQUAL(write(mixed[1], "p", 1), 1);
	put(mixed[1], "ab");
	CHECK_EQUAL(write(mixed[1], "q", 1), 1);
	packets(mixed[1], false);
	CHECK_EQUAL(write(mixed[1], "tail", 4), 4);
	/* The last packet, of whose mode nothing is seen any more. */
	packets(single[1], true);
	CHECK_EQUAL(write(single[1], "single", 6), 6);
	close(single[1]);
	CHECK_EQUAL(fcntl(full[1], F_SETPIPE_SZ, 8192), 8192);
	pipe_fill(full[1]);
	again = reopen(slow[0], O_WRONLY);
	both = reopen(ring[0][0], O_RDWR | O_NONBLOCK);
	/* of packets, which open() cannot say */
	packed = reopen(slow[0], O_WRONLY);
	packets(packed, true);
	CHECK(!fcntl(slow[1], F_SETOWN, getpid()) && !fcntl(slow[1], F_SETSIG, SIGUSR2));
	CHECK(!mkfifo("fifo", 0600) && !mkfifo("gone", 0600));
	gone = open("gone", O_RDWR);
	CHECK_EQUAL(write(gone, "left", 4), 4);
	CHECK(!unlink("gone"));
	pids[0] = test_fork(around, NULL);
	pids[1] = test_fork(reader, NULL);
	pids[2] = test_fork(writer, NULL);
	pids[3] = test_fork(opener, NULL);
	test_until_in(pids[0], SYS_read);
	test_until_in(pids[1], SYS_read);
	test_until_in(pids[2], SYS_write);
	test_until_in(pids[3], SYS_openat);

	test_wait();
	if (test_break(1))
		expect(mixed[0], 2, "pl");
	if (test_break(2))
		expect(single[0], 2, "si");
	expect(mixed[0], 3, "pla");
	/* A read goes on to the end of a packet, of which the rest is lost. */
	expect(mixed[0], 5, "inpac");
	expect(mixed[0], 5, "p");
	expect(mixed[0], 1, "a");
	expect(mixed[0], 9, "bq");
	CHECK_EQUAL(write(mixed[1], "s", 1), 1);
	expect(mixed[0], 9, "tails");
	expect(single[0], 3, "sin");
	CHECK_EQUAL(read(single[0], &number, 1), 0);
	test_until_in(pids[3], SYS_openat);
	expect(open("fifo", O_RDONLY), 20, "opened");
	expect(gone, 20, "left");
	CHECK(!fcntl(slow[1], F_GETOWN_EX, &owner));
	CHECK_EQUAL(owner.pid, getpid());
	CHECK_EQUAL(fcntl(slow[1], F_GETSIG), SIGUSR2);
	CHECK_EQUAL(fcntl(packed, F_GETFL) & O_DIRECT, O_DIRECT);
	close(packed);
	close(slow[1]);
	CHECK_EQUAL(write(again, "hello", 5), 5);
	CHECK_EQUAL(fcntl(both, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR | O_NONBLOCK);
	number = 7;
	CHECK_EQUAL(write(both, &number, sizeof(number)), (ssize_t)sizeof(number));
	CHECK_EQUAL(read(ring[1][0], &number, sizeof(number)), (ssize_t)sizeof(number));
	CHECK_EQUAL(number, 8);
	/* The writer that waited may have written already. */
	pipe_drain(full[0]);
	p = (struct pollfd){.fd = full[0], .events = POLLIN};
	CHECK_EQUAL(poll(&p, 1, 10000), 1);
	expect(full[0], 20, "end");
	for (int i = 0; i < 4; i++)
		test_reap(pids[i], 3 + i);
	test_pass();
}
