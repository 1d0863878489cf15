/* SPDX-License-Identifier: Apache-2.0 */
/* The character devices that every program may use. */
#include "harness.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random",
				    "/dev/urandom"};

int main(void)
{
	int fds[5], flags[5];
	char data[64], zeroes[64] = {0};
	struct stat before[5], now;

	test_init();
	for (int i = 0; i < 5; i++) {
		fds[i] = open(names[i], i % 2 ? O_RDONLY | O_NONBLOCK : O_RDWR);
		CHECK(fds[i] >= 0);
		flags[i] = fcntl(fds[i], F_GETFL);
		CHECK(!fstat(fds[i], &before[i]));
	}
	test_wait();
	if (test_break(1))
		dup2(fds[0], fds[2]);
	for (int i = 0; i < 5; i++) {
		CHECK(!fstat(fds[i], &now));
		CHECK_EQUAL(now.st_rdev, before[i].st_rdev);
		CHECK_EQUAL(fcntl(fds[i], F_GETFL), flags[i]);
	}
	CHECK_EQUAL(read(fds[0], data, 1), 0);
	CHECK_EQUAL(write(fds[0], data, 5), 5);
	memset(data, 1, 64);
	CHECK(read(fds[1], data, 64) == 64 && !memcmp(data, zeroes, 64));
	CHECK(write(fds[2], data, 1) < 0 && errno == ENOSPC);
	CHECK(read(fds[3], data, 16) == 16 && read(fds[4], data, 16) == 16);
	CHECK(memcmp(data, zeroes, 16));
	test_pass();
}
