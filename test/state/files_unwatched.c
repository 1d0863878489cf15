/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors that came with events of fanotify, of a file and of a directory, one of them for
 * writing: what is done through them makes no events, also when the group is closed. Others of the
 * same files do.
 *
 * needs: root
 * not-in: both: each copy would see what the other does
 * may-refuse: kernel-too-old
 */
#include "harness.h"

#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static int watch;

/* The one that comes with the event of opening it. */
static int by_event(const char *name, unsigned int flags)
{
	struct fanotify_event_metadata event;
	int group = fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK, flags), fd = open(name, O_RDONLY);

	CHECK(fd >= 0);
	if (group < 0 || fanotify_mark(group, FAN_MARK_ADD, FAN_OPEN | FAN_ONDIR, AT_FDCWD, name))
		test_skip("no fanotify here (errno %d)", errno);
	close(open(name, O_RDONLY));
	CHECK_EQUAL(read(group, &event, sizeof(event)), sizeof(event));
	close(group);
	close(fd);
	return event.fd;
}

static uint32_t seen(void)
{
	struct inotify_event event;
	uint32_t mask = 0;

	while (read(watch, &event, sizeof(event)) > 0)
		mask |= event.mask & (IN_ALL_EVENTS | IN_IGNORED);
	return mask;
}

static void check(int fd, bool writes, uint32_t expected)
{
	char c;

	seen();
	if (writes)
		CHECK_EQUAL(write(fd, "x", 1), 1);
	else
		CHECK_EQUAL(pread(fd, &c, 1, 0), 1);
	CHECK_EQUAL(seen(), expected);
}

int main(void)
{
	int reads, writes, directory, usual;
	struct stat st;

	test_init();
	CHECK(!mkdir("directory", 0700));
	test_write("file", "0123456789", 10);
	reads = by_event("file", O_RDONLY | O_LARGEFILE);
	writes = by_event("file", O_RDWR | O_APPEND | O_NONBLOCK | O_CLOEXEC);
	directory = by_event("directory", O_RDONLY | O_CLOEXEC);
	CHECK(!fcntl(directory, F_SETFD, 0)); /* which fdinfo does not show */
	usual = open("file", O_RDWR | O_APPEND);
	CHECK(usual >= 0);
	CHECK_EQUAL(lseek(reads, 3, SEEK_SET), 3);

	test_wait();
	if (test_break(1))
		CHECK_EQUAL(dup2(usual, reads), reads);
	if (test_break(2))
		CHECK_EQUAL(dup2(usual, writes), writes);
	watch = inotify_init1(IN_NONBLOCK);
	CHECK(inotify_add_watch(watch, "file", IN_ACCESS | IN_MODIFY) > 0);
	check(usual, false, IN_ACCESS);
	check(usual, true, IN_MODIFY);
	check(reads, false, 0);
	check(writes, false, 0);
	check(writes, true, 0);
	CHECK_EQUAL(lseek(reads, 0, SEEK_CUR), 3);
	CHECK_EQUAL(fcntl(writes, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK),
		    O_RDWR | O_APPEND | O_NONBLOCK);
	CHECK_EQUAL(fcntl(writes, F_GETFD), FD_CLOEXEC);
	CHECK_EQUAL(fcntl(directory, F_GETFD), 0);
	CHECK(!fstat(directory, &st) && S_ISDIR(st.st_mode));
	test_pass();
}
