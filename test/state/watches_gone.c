/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches on files of a control group that was removed, of which nobody tells who watches: they
 * keep their numbers, and can be taken away, as service managers do.
 *
 * needs: root
 * not-in: both: each copy would see what the other does
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define MASK (IN_MODIFY | IN_DELETE_SELF | IN_ATTRIB | IN_CLOSE)

static const char *const roots[] = {"/sys/fs/cgroup/unified", "/sys/fs/cgroup"};
static char group[128];

/* Control groups are of no namespace, but our directory is nobody else's. */
static bool make_group(void)
{
	struct stat here;

	CHECK(stat(".", &here) == 0);
	for (int i = 0; i < 2; i++) {
		char file[160];

		snprintf(group, sizeof(group), "%s/reprise-gone-%ju", roots[i],
			 (uintmax_t)here.st_ino);
		snprintf(file, sizeof(file), "%s/cgroup.procs", roots[i]);
		if (access(file, F_OK) == 0 && mkdir(group, 0700) == 0)
			return true;
	}
	return false;
}

static int watch(int fd, const char *name)
{
	char path[192];

	snprintf(path, sizeof(path), "%s/%s", group, name);
	return inotify_add_watch(fd, path, MASK);
}

static void expect_events(int fd, int wd, uint32_t mask)
{
	struct inotify_event got[4];
	ssize_t n = read(fd, got, sizeof(got));

	CHECKF(n == sizeof(got[0]), "%zd bytes of events, errno %d", n, errno);
	CHECKF(got[0].wd == wd && got[0].mask == mask, "event %#x of watch %d", got[0].mask,
	       got[0].wd);
}

int main(void)
{
	char shown[4096], path[64];
	int fd, file, events, procs, there;

	test_init();
	fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	file = test_file("watched", 10, 1);
	if (!make_group())
		test_skip("no control group can be made: %m");
	events = watch(fd, "cgroup.events");
	there = inotify_add_watch(fd, "watched", IN_MODIFY);
	procs = watch(fd, "cgroup.procs");
	CHECK(rmdir(group) == 0);
	CHECK(events == 1 && there == 2 && procs == 3);
	test_wait();

	if (test_break(1))
		CHECK(inotify_rm_watch(fd, procs) == 0 && inotify_rm_watch(fd, events) == 0);
	if (test_break(2))
		CHECK(inotify_add_watch(fd, ".", IN_MODIFY) == 4);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	test_read(path, shown, sizeof(shown));
	CHECKF(strstr(shown, "inotify wd:3 ") && strstr(shown, "inotify wd:1 "), "%s", shown);
	CHECKF(!strstr(shown, "inotify wd:4 "), "%s", shown);
	CHECK(read(fd, shown, sizeof(shown)) < 0 && errno == EAGAIN);
	CHECK(write(file, "x", 1) == 1);
	expect_events(fd, there, IN_MODIFY);
	CHECK(inotify_rm_watch(fd, events) == 0);
	expect_events(fd, events, IN_IGNORED);
	CHECK(inotify_rm_watch(fd, procs) == 0);
	expect_events(fd, procs, IN_IGNORED);
	test_pass();
}
