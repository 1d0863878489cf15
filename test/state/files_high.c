/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors with high numbers, and gaps between them. */
#include "harness.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static const int numbers[] = {3, 63, 64, 65, 255, 256, 1023, 1024, 4095, 4096, 9999};
#define COUNT 11

int main(void)
{
	struct rlimit limit;
	int fd, last;

	test_init();
	CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
	if (limit.rlim_cur < 10000)
		test_skip("the limit of descriptors is %ld", (long)limit.rlim_cur);
	fd = test_file("file", 20000, 1);
	for (int i = 0; i < COUNT; i++) {
		int other = open("file", O_RDONLY);

		lseek(other, numbers[i], SEEK_SET);
		if (other != numbers[i]) {
			CHECK_EQUAL(dup3(other, numbers[i], i % 2 ? O_CLOEXEC : 0), numbers[i]);
			close(other);
		}
	}
	close(fd == 3 ? 900 : fd);
	/* What it had been is gone: lower the limit below the highest that is open. */
	limit.rlim_cur = 100;
	CHECK(!setrlimit(RLIMIT_NOFILE, &limit));

	test_wait();
	if (test_break(1))
		dup2(3, 50);
	last = 2;
	for (int i = 0; i < COUNT; i++) {
		for (int gap = last + 1; gap < numbers[i]; gap++)
			CHECKF(fcntl(gap, F_GETFD) < 0, "descriptor %d is open", gap);
		last = numbers[i];
		CHECK_EQUAL(lseek(numbers[i], 0, SEEK_CUR), numbers[i]);
		CHECK_EQUAL(fcntl(numbers[i], F_GETFD), i % 2 && numbers[i] != 3 ? FD_CLOEXEC : 0);
	}
	test_pass();
}
