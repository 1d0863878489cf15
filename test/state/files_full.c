/* SPDX-License-Identifier: Apache-2.0 */
/* A descriptor table that is full to its limit. */
#include "harness.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define LIMIT 40

int main(void)
{
	struct rlimit limit = {LIMIT, LIMIT}, now;
	int count = 0, fd;

	test_init();
	CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
	test_write("file", "0123456789", 10);
	while ((fd = open("file", O_RDONLY)) >= 0)
		lseek(fd, fd % 10, SEEK_SET);
	CHECK(errno == EMFILE);
	test_wait();
	if (test_break(1))
		close(20);
	for (fd = 0; fd < LIMIT; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	CHECK_EQUAL(count, LIMIT);
	for (fd = 3; fd < LIMIT; fd++)
		CHECK_EQUAL(lseek(fd, 0, SEEK_CUR), fd % 10);
	CHECK(open("file", O_RDONLY) < 0 && errno == EMFILE);
	CHECK(!getrlimit(RLIMIT_NOFILE, &now));
	CHECK(now.rlim_cur == LIMIT && now.rlim_max == LIMIT);
	test_pass();
}
