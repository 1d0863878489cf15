/* SPDX-License-Identifier: Apache-2.0 */
/* The highest number of a descriptor that the limit allows, and free ones below. */
#include "harness.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define LIMIT 100

static bool is_free(int fd)
{
	return fd % 7 == 3 || (fd > 30 && fd < 90);
}

int main(void)
{
	struct rlimit limit = {LIMIT, LIMIT};
	int file;

	test_init();
	file = test_file("file", 100, 1);
	for (int fd = 3; fd < LIMIT; fd++) {
		CHECK(fd == file || dup2(file, fd) == fd);
		CHECK_EQUAL(lseek(fd, 9, SEEK_SET), 9);
	}
	for (int fd = 3; fd < LIMIT; fd++)
		if (is_free(fd))
			close(fd);
	CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
	test_wait();
	if (test_break(1))
		close(LIMIT - 1);
	for (int fd = 3; fd < LIMIT; fd++) {
		CHECKF((fcntl(fd, F_GETFD) < 0) == is_free(fd), "descriptor %d", fd);
		CHECK(is_free(fd) || lseek(fd, 0, SEEK_CUR) == 9);
	}
	test_pass();
}
