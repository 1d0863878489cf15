/* SPDX-License-Identifier: Apache-2.0 */
/* Five thousand descriptors, shared with a child. */
#include "harness.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define COUNT 5000

static volatile int *shared;

static int child(void *arg)
{
	test_hold();
	while (!shared[0])
		usleep(1000);
	for (int fd = 10; fd < COUNT; fd++)
		CHECK_EQUAL(lseek(fd, 0, SEEK_CUR), fd + 1);
	return 4;
}

int main(void)
{
	struct rlimit limit;
	pid_t pid;

	test_init();
	shared = test_shared(4096);
	CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
	if (limit.rlim_cur < COUNT + 10)
		test_skip("the limit of descriptors is %ld", (long)limit.rlim_cur);
	test_write("file", "0123456789", 10);
	while (open("file", O_RDONLY) < COUNT)
		;
	for (int fd = 10; fd < COUNT; fd++)
		lseek(fd, fd, SEEK_SET);
	pid = test_fork(child, NULL);
	test_wait();
	for (int fd = 10; fd < COUNT; fd++)
		CHECK_EQUAL(lseek(fd, 1, SEEK_CUR), fd + 1);
	if (test_break(1))
		lseek(4000, 0, SEEK_SET);
	shared[0] = 1;
	test_reap(pid, 4);
	test_pass();
}
