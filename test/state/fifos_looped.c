/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fifos between processes, with a name and removed: a token goes round through both, a reader and a
 * writer wait, packets and a size of their own.
 *
 * not-in: both: a fifo with a name is one for original and copy
 */
#include "full_pipe.h"
#include "harness.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { THERE, BACK, EMPTY, FULL, PACKETS, COUNT };

static const char *const names[COUNT] = {"there", "back", "empty", "full", "packets"};
static int fds[COUNT];

/* Opened by each for itself, and blocked in the middle of the loop. */
static int around(void *arg)
{
	int in = open("there", O_RDONLY), out = open("back", O_WRONLY), token;

	test_write("looped", "", 0);
	while (read(in, &token, sizeof(token)) == sizeof(token)) {
		token++;
		CHECK_EQUAL(write(out, &token, sizeof(token)), (ssize_t)sizeof(token));
		if (token >= 100)
			return 3;
	}
	return 1;
}

static int reader(void *arg)
{
	char buf[8];

	CHECK_EQUAL(read(fds[EMPTY], buf, sizeof(buf)), 5);
	CHECK(!memcmp(buf, "hello", 5));
	return 4;
}

static int writer(void *arg)
{
	CHECK_EQUAL(write(fds[FULL], "end", 3), 3);
	return 5;
}

static void pass_on(int *token)
{
	CHECK_EQUAL(write(fds[THERE], token, sizeof(*token)), (ssize_t)sizeof(*token));
	CHECK_EQUAL(read(fds[BACK], token, sizeof(*token)), (ssize_t)sizeof(*token));
}

int main(void)
{
	pid_t pids[3];
	char buf[16];
	int token = 0;

	test_init();
	for (int i = 0; i < COUNT; i++) {
		CHECK(!mkfifo(names[i], 0600));
		fds[i] = open(names[i], O_RDWR);
		CHECK(fds[i] >= 0);
	}
	/* open() takes no such flag */
	CHECK(!fcntl(fds[PACKETS], F_SETFL, O_DIRECT));
	CHECK_EQUAL(fcntl(fds[FULL], F_SETPIPE_SZ, 8192), 8192);
	pipe_fill(fds[FULL]);
	CHECK_EQUAL(write(fds[PACKETS], "one", 3), 3);
	CHECK_EQUAL(write(fds[PACKETS], "second", 6), 6);
	pids[0] = test_fork(around, NULL);
	pids[1] = test_fork(reader, NULL);
	pids[2] = test_fork(writer, NULL);
	while (access("looped", F_OK))
		usleep(1000);
	CHECK(!unlink("back") && !unlink("empty") && !unlink("packets"));
	pass_on(&token);
	test_until_in(pids[0], SYS_read);
	test_until_in(pids[1], SYS_read);
	test_until_in(pids[2], SYS_write);

	test_wait();
	if (test_break(1))
		CHECK_EQUAL(read(fds[PACKETS], buf, 1), 1);
	if (test_break(2))
		CHECK_EQUAL(write(fds[EMPTY], "other", 5), 5);
	while (token < 100)
		pass_on(&token);
	test_reap(pids[0], 3);
	CHECK_EQUAL(fcntl(fds[PACKETS], F_GETFL) & O_DIRECT, O_DIRECT);
	CHECK_EQUAL(read(fds[PACKETS], buf, sizeof(buf)), 3);
	CHECK_EQUAL(read(fds[PACKETS], buf, 2), 2);
	CHECK_EQUAL(write(fds[EMPTY], "hello", 5), 5);
	test_reap(pids[1], 4);
	CHECK_EQUAL(fcntl(fds[FULL], F_GETPIPE_SZ), 8192);
	pipe_drain(fds[FULL]);
	test_reap(pids[2], 5);
	CHECK_EQUAL(read(fds[FULL], buf, sizeof(buf)), 3);
	CHECK(!memcmp(buf, "end", 3));
	CHECK(!access("there", F_OK) && access("back", F_OK) < 0);
	test_pass();
}
