/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inotify and fanotify: watches on directories, on a symbolic link itself, on a removed file that
 * is open; masks; shared with a child; marks on inodes and mounts, ignored events.
 *
 * not-in: both: each copy would see what the other does
 */
#include "harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static int watcher, removed, group, everything;
static int wd_dir, wd_link, wd_removed;

static int child(void *arg)
{
	char buf[512];

	/* The same queue. */
	CHECK(read(watcher, buf, sizeof(buf)) > 0);
	CHECK_EQUAL(((struct inotify_event *)(void *)buf)->wd, wd_dir);
	return 4;
}

static void check_event(int wd, uint32_t mask)
{
	struct inotify_event event; /* without a name */

	CHECK_EQUAL(read(watcher, &event, sizeof(event)), (ssize_t)sizeof(event));
	CHECK_EQUAL(event.wd, wd);
	CHECK_EQUAL(event.mask & IN_ALL_EVENTS, mask);
}

/* Names of its own: a copy may do the same beside us. */
static const char *fresh(const char *directory)
{
	static char name[100];

	snprintf(name, sizeof(name), "%s/%d-%f", directory, getpid(), test_now());
	return name;
}

static void set_up_fanotify(void)
{
	group = fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID, O_RDONLY);
	if (group < 0)
		return;
	if (fanotify_mark(group, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, "marked")) {
		close(group);
		group = -1;
	}
	everything = fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY);
	if (everything < 0)
		return;
	CHECK(!fanotify_mark(everything, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_MODIFY, AT_FDCWD,
			     "/sys"));
	CHECK(!fanotify_mark(everything, FAN_MARK_ADD | FAN_MARK_ONLYDIR, FAN_OPEN | FAN_ONDIR,
			     AT_FDCWD, "directory"));
	CHECK(!fanotify_mark(everything,
			     FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY,
			     FAN_MODIFY | FAN_OPEN, AT_FDCWD, "ignored"));
	CHECK(!fanotify_mark(everything, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, "ignored"));
}

static void check_fanotify(void)
{
	struct fanotify_event_metadata event[8];
	ssize_t n;

	if (group >= 0) {
		CHECK(read(group, event, sizeof(event)) < 0 && errno == EAGAIN);
		test_write("marked", "2", 1);
		n = read(group, event, sizeof(event));
		CHECKF(n > 0 && event[0].mask == FAN_MODIFY, "%zd, mask %llx", n,
		       n > 0 ? (unsigned long long)event[0].mask : 0);
	}
	if (everything < 0)
		return;
	test_write("ignored", "2", 1);
	while (read(everything, event, sizeof(event)) > 0)
		CHECKF(0, "an event that is ignored: %llx", (unsigned long long)event[0].mask);
	closedir(opendir("directory"));
	CHECK(read(everything, event, sizeof(event)) > 0);
	CHECK_EQUAL(event[0].mask, FAN_OPEN);
	close(event[0].fd);
}

int main(void)
{
	const char *name;
	pid_t pid;

	test_init();
	CHECK(!mkdir("directory", 0700) && !symlink("nowhere", "link"));
	test_write("marked", "1", 1);
	test_write("ignored", "1", 1);
	watcher = inotify_init1(IN_CLOEXEC);
	wd_dir = inotify_add_watch(watcher, "directory", IN_CREATE | IN_EXCL_UNLINK);
	wd_link = inotify_add_watch(watcher, "link", IN_ATTRIB | IN_DONT_FOLLOW | IN_ONESHOT);
	removed = test_file("removed", 10, 1);
	wd_removed = inotify_add_watch(watcher, "removed", IN_MODIFY);
	CHECK(wd_dir > 0 && wd_link > 0 && wd_removed > 0);
	CHECK(!unlink("removed"));
	set_up_fanotify();
	pid = test_fork(child, NULL);

	test_wait();
	if (test_break(1))
		CHECK(!inotify_rm_watch(watcher, wd_link));
	name = fresh("directory");
	test_write(name, "", 0);
	test_reap(pid, 4);
	CHECK_EQUAL(pwrite(removed, "x", 1, 0), 1);
	check_event(wd_removed, IN_MODIFY);
	CHECK(!fchownat(AT_FDCWD, "link", getuid(), getgid(), AT_SYMLINK_NOFOLLOW));
	check_event(wd_link, IN_ATTRIB);
	check_event(wd_link, 0); /* IN_IGNORED: it was for one event only */
	CHECK(!inotify_rm_watch(watcher, wd_dir));
	check_event(wd_dir, 0);
	unlink(name);
	check_fanotify();
	test_pass();
}
