/* SPDX-License-Identifier: Apache-2.0 */
/* Pipes: contents, size, flags, packets, ends in several processes, ends that are closed. */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int full[2], packets[2], orphan[2], deaf[2], between[2], empty[2];
static volatile int *shared;

static int writer(void *arg)
{
	close(between[0]);
	close(full[0]);
	close(full[1]);
	shared[0] = 1;
	test_hold();
	for (int i = 0; i < 1000; i++)
		CHECK_EQUAL(write(between[1], &i, sizeof(i)), (int)sizeof(i));
	return 7;
}

static size_t fill(int fd)
{
	char byte[1000];
	size_t size = 0;
	ssize_t n;

	CHECK(!fcntl(fd, F_SETFL, O_NONBLOCK));
	for (;;) {
		for (int i = 0; i < 1000; i++)
			byte[i] = (char)((size + i) * 31 >> 3);
		n = write(fd, byte, size % 7 ? 1000 : 333);
		if (n <= 0)
			return size;
		size += n;
	}
}

int main(void)
{
	char buffer[5000], *large = malloc(1 << 20);
	struct pollfd poll_fd;
	int number, bytes, got;
	int opened[2], opened_end;
	size_t size;
	pid_t pid;

	test_init();
	shared = test_shared(4096);
	CHECK(!pipe2(full, O_CLOEXEC) && !pipe2(packets, O_DIRECT) && !pipe(orphan) &&
	      !pipe(deaf) && !pipe(between) && !pipe2(empty, O_NONBLOCK));
	CHECK_EQUAL(fcntl(full[0], F_SETPIPE_SZ, 262144), 262144);
	size = fill(full[1]);
	CHECK(size > 100000);
	CHECK_EQUAL(write(packets[1], "first", 5), 5);
	CHECK_EQUAL(write(packets[1], "second one", 10), 10);
	CHECK_EQUAL(write(packets[1], "3", 1), 1);
	CHECK_EQUAL(write(orphan[1], "last words", 10), 10);
	close(orphan[1]);
	close(deaf[0]);
	CHECK(!pipe(opened));
	snprintf(buffer, sizeof(buffer), "/proc/self/fd/%d", opened[0]);
	opened_end = open(buffer, O_WRONLY);
	CHECK(opened_end >= 0);
	close(opened[1]);
	pid = test_fork(writer, NULL);
	close(between[1]);
	/* Three bytes are left of what another has written. */
	CHECK_EQUAL(fcntl(empty[1], F_SETPIPE_SZ, 4096), 4096);
	CHECK_EQUAL(write(empty[1], "12345678", 8), 8);
	CHECK_EQUAL(read(empty[0], buffer, 5), 5);
	while (!shared[0])
		usleep(1000);

	test_wait();
	if (test_break(1))
		CHECK_EQUAL(read(full[0], buffer, 1), 1);
	if (test_break(2))
		CHECK_EQUAL(write(empty[1], "x", 1), 1);
	CHECK_EQUAL(fcntl(full[1], F_GETPIPE_SZ), 262144);
	CHECK_EQUAL(fcntl(full[1], F_GETFL), O_WRONLY | O_NONBLOCK);
	CHECK_EQUAL(fcntl(full[0], F_GETFL), O_RDONLY);
	CHECK_EQUAL(fcntl(opened_end, F_GETFL), O_WRONLY | 0100000); /* O_LARGEFILE */
	CHECK_EQUAL(write(opened_end, "o", 1), 1);
	CHECK_EQUAL(read(opened[0], buffer, 2), 1);
	CHECK_EQUAL(fcntl(full[0], F_GETFD), FD_CLOEXEC);
	CHECK(!ioctl(full[0], FIONREAD, &bytes));
	CHECK_EQUAL(bytes, size);
	for (size_t done = 0; done < size; done += got) {
		got = read(full[0], large, 1 << 20);
		CHECK(got > 0);
		for (int i = 0; i < got; i++)
			if (done + i < 1000)
				CHECK_EQUAL(large[i], (char)((done + i) * 31 >> 3));
	}
	CHECK(!ioctl(full[0], FIONREAD, &bytes) && bytes == 0);
	/* It is one pipe still. */
	CHECK_EQUAL(write(full[1], "again", 5), 5);
	CHECK_EQUAL(read(full[0], buffer, 100), 5);
	CHECK(fcntl(packets[1], F_GETFL) & O_DIRECT);
	CHECK_EQUAL(read(packets[0], buffer, 3), 3); /* the rest of that packet is lost */
	CHECK_EQUAL(read(packets[0], buffer, 100), 10);
	CHECK(!memcmp(buffer, "second one", 10));
	CHECK_EQUAL(write(packets[1], "ab", 2), 2);
	CHECK_EQUAL(write(packets[1], "c", 1), 1);
	CHECK_EQUAL(read(packets[0], buffer, 100), 1);
	CHECK_EQUAL(read(packets[0], buffer, 100), 2);
	CHECK_EQUAL(read(orphan[0], buffer, 100), 10);
	CHECK_EQUAL(read(orphan[0], buffer, 100), 0);
	signal(SIGPIPE, SIG_IGN);
	CHECK(write(deaf[1], "x", 1) < 0 && errno == EPIPE);
	CHECK_EQUAL(fcntl(empty[1], F_GETPIPE_SZ), 4096);
	CHECK_EQUAL(read(empty[0], buffer, 100), 3);
	CHECK(!memcmp(buffer, "678", 3));
	CHECK(read(empty[0], buffer, 1) < 0 && errno == EAGAIN);
	for (int i = 0; i < 1000; i++) {
		CHECK_EQUAL(read(between[0], &number, sizeof(number)), (int)sizeof(number));
		CHECK_EQUAL(number, i);
	}
	/* The only writer has gone. */
	test_reap(pid, 7);
	poll_fd = (struct pollfd){.fd = between[0], .events = POLLIN};
	CHECK_EQUAL(poll(&poll_fd, 1, 5000), 1);
	CHECK_EQUAL(read(between[0], buffer, 1), 0);
	test_pass();
}
