/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files about pressure, of the machine and of a control group, that are waited on.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#define TRIGGER "some 150000 2000000"

static int open_group(void)
{
	int fd = open("/sys/fs/cgroup/memory.pressure", O_RDWR | O_NONBLOCK);

	return fd < 0 ? open("/sys/fs/cgroup/unified/memory.pressure", O_RDWR | O_NONBLOCK) : fd;
}

/* Without a wait it polls as an error; a second one is not allowed. */
static void check(int fd, bool waits)
{
	struct pollfd p = {.fd = fd, .events = POLLPRI};

	CHECK(poll(&p, 1, 0) >= 0);
	CHECK_EQUAL((p.revents & POLLERR) != 0, !waits);
	if (waits) {
		CHECK_EQUAL(write(fd, TRIGGER, sizeof(TRIGGER)), -1);
		CHECK_EQUAL(errno, EBUSY);
	}
}

static void wait_for(int fd, const char *trigger)
{
	if (write(fd, trigger, strlen(trigger) + 1) < 0)
		test_skip("no pressure to wait for: %s", strerror(errno));
}

int main(void)
{
	int some, full, group, none;

	test_init();
	some = open("/proc/pressure/memory", O_RDWR | O_NONBLOCK);
	if (some < 0)
		test_skip("nothing is told about pressure here");
	full = open("/proc/pressure/io", O_WRONLY | O_CLOEXEC);
	none = open("/proc/pressure/io", O_RDWR);
	group = open_group();
	wait_for(some, TRIGGER);
	wait_for(full, "full 200000 4000000");
	if (group >= 0)
		wait_for(group, "full 300000 6000000");

	test_wait();
	if (test_break(1)) {
		close(some);
		some = open("/proc/pressure/memory", O_RDWR | O_NONBLOCK);
	}
	check(some, true);
	check(full, true);
	check(none, false);
	if (group >= 0)
		check(group, true);
	test_pass();
}
