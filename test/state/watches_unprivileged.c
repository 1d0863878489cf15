/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fanotify group that was made without privilege tells nobody who did something, but of oneself;
 * one that was made with privilege does. So it stays after a restart by root.
 *
 * not-in: both: each copy would see what the other does
 */
#include "harness.h"

#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define FLAGS (FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID)

static int writer(void *arg)
{
	test_write("marked", "2", 1);
	return 0;
}

/* Who has written: ourselves, 0: not told. */
static pid_t told(int group, int (*fn)(void *))
{
	char buf[512] __attribute__((aligned(8)));
	struct fanotify_event_metadata event;

	if (fn)
		test_reap(test_fork(fn, NULL), 0);
	else
		writer(NULL);
	CHECK(read(group, buf, sizeof(buf)) >= (ssize_t)sizeof(event));
	memcpy(&event, buf, sizeof(event));
	CHECK_EQUAL(event.mask, FAN_MODIFY);
	CHECK(read(group, buf, sizeof(buf)) < 0 && errno == EAGAIN);
	return event.pid;
}

static int make(int fd)
{
	int group = fanotify_init(FLAGS, O_RDONLY);

	if (group < 0 || fanotify_mark(group, FAN_MARK_ADD, FAN_MODIFY, fd, NULL))
		test_skip("no fanotify here (errno %d)", errno);
	return group;
}

int main(void)
{
	int group, privileged = -1, fd;

	test_init();
	test_write("marked", "1", 1);
	fd = open("marked", O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && !fchmod(fd, 0644));
	if (!geteuid()) {
		privileged = make(fd);
		CHECK(!seteuid(65534));
	}
	group = make(fd);
	if (privileged >= 0)
		CHECK(!seteuid(0));

	test_wait();
	if (test_break(1)) {
		close(group);
		group = make(fd);
	}
	if (told(group, writer) || told(group, NULL) != getpid())
		test_fail(__FILE__, __LINE__, "somebody else is told of");
	if (privileged >= 0)
		CHECK(told(privileged, writer) > 0);
	test_pass();
}
