/* SPDX-License-Identifier: Apache-2.0 */
/* A task without any descriptor, not even the first three, and without a signal handler. */
#include "harness.h"

#include <fcntl.h>
#include <unistd.h>

int main(void)
{
	test_init();
	for (int fd = 0; fd < 100; fd++)
		close(fd);
	test_wait();
	if (test_break(1))
		CHECK(open("/dev/null", O_RDONLY) == 0);
	for (int fd = 0; fd < 1024; fd++)
		CHECKF(fcntl(fd, F_GETFD) < 0, "descriptor %d is open", fd);
	CHECK_EQUAL(open("/dev/null", O_RDONLY), 0);
	test_pass();
}
