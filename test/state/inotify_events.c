/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unread events of inotify: all kinds, with and without names, of watches that have gone, in a
 * queue that has overflowed. A second instance has had the same events and was read: it says what
 * should be there.
 *
 * not-in: both: each copy would see what the other does
 * may-refuse: file-events
 */
#include "harness.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOM 65536

static int in[2], over, pair[2];
static char expected[ROOM];
static ssize_t length;
static int limit;

static int watch_path(const char *path, uint32_t mask)
{
	int wd = inotify_add_watch(in[0], path, mask);

	CHECK(wd > 0);
	CHECK_EQUAL(inotify_add_watch(in[1], path, mask), wd);
	return wd;
}

static void unwatch(int wd)
{
	CHECK(!inotify_rm_watch(in[0], wd) && !inotify_rm_watch(in[1], wd));
}

static void touch(const char *path)
{
	test_write(path, "contents", 8);
}

static void in_directories(void)
{
	char name[NAME_MAX + 1];

	touch("watched/file");
	CHECK(!chmod("watched/file", 0755));
	CHECK(!mkdir("watched/directory", 0700));
	close(open("watched/directory", O_RDONLY));
	CHECK(!chmod("watched/directory", 0750));
	CHECK(!rename("watched/file", "watched/renamed"));
	CHECK(!rename("watched/renamed", "other/moved"));
	CHECK(!rename("other/moved", "out"));
	CHECK(!rename("out", "watched/in"));
	CHECK(!rename("watched/directory", "other/directory"));
	execl("watched/in", "in", NULL);
	CHECK_EQUAL(errno, ENOEXEC);
	CHECK(!unlink("watched/in") && !rmdir("other/directory"));
	memset(name, 'n', NAME_MAX);
	name[NAME_MAX] = '\0';
	CHECK(!chdir("watched"));
	touch(name);
	CHECK(!chdir(".."));
	close(open("watched", O_RDONLY));
	CHECK(!chmod("watched", 0755));
}

static void of_files(void)
{
	int wd = watch_path("old", IN_ALL_EVENTS), once = watch_path("once", IN_OPEN | IN_ONESHOT);
	int self = watch_path("here", IN_ALL_EVENTS), gone = watch_path("going", IN_ALL_EVENTS);
	const struct timespec now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}};

	CHECK(wd > 0 && once > 0 && self > 0 && gone > 0);
	touch("here");
	CHECK(!utimensat(AT_FDCWD, "here", now, 0));
	CHECK(!rename("here", "there"));
	touch("once");
	touch("old");
	unwatch(wd);
	touch("going");
	CHECK(!unlink("going"));
	wd = watch_path("empty", IN_ALL_EVENTS);
	CHECK(!rmdir("empty"));
}

/* A file system that nobody else sees; needs root. */
static void of_mounts(void)
{
	char path[64];
	int fs = fsopen("tmpfs", 0), mount;

	if (fs < 0)
		return;
	CHECK(!fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	mount = fsmount(fs, 0, 0);
	CHECK(mount >= 0);
	close(fs);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", mount);
	watch_path(path, IN_ALL_EVENTS);
	CHECK(!mkdirat(mount, "sub", 0700));
	close(mount);
}

/* The overflow has events before and behind it. */
static void overflow(void)
{
	struct inotify_event event;
	int fd = test_file("many", 1, 1);
	FILE *f = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
	char byte;

	CHECK(f && fscanf(f, "%d", &limit) == 1);
	fclose(f);
	CHECK_EQUAL(inotify_add_watch(over, "many", IN_ACCESS | IN_MODIFY), 1);
	for (int i = 0; i < limit + 10; i++)
		CHECK_EQUAL(i % 2 ? pread(fd, &byte, 1, 0) : pwrite(fd, "x", 1, 0), 1);
	for (int i = 0; i < 20; i++)
		CHECK(read(over, &event, sizeof(event)) > 0);
	for (int i = 0; i < 10; i++)
		CHECK_EQUAL(i % 2 ? pread(fd, &byte, 1, 0) : pwrite(fd, "x", 1, 0), 1);
	close(fd);
}

static void check_overflow(void)
{
	struct inotify_event event;

	for (int i = 0; i < limit - 20 + 1 + 10; i++) {
		uint32_t want = i == limit - 20			   ? IN_Q_OVERFLOW
				: (i > limit - 20 ? i + 1 : i) % 2 ? IN_ACCESS
								   : IN_MODIFY;

		CHECK_EQUAL(read(over, &event, sizeof(event)), (ssize_t)sizeof(event));
		CHECK_EQUAL(event.mask, want);
		CHECK_EQUAL(event.wd, want == IN_Q_OVERFLOW ? -1 : 1);
	}
	CHECK(read(over, &event, sizeof(event)) < 0 && errno == EAGAIN);
}

static const struct inotify_event *at(const char *buf, ssize_t offset)
{
	return (const struct inotify_event *)(const void *)(buf + offset);
}

/* Numbers of renames are others: equal ones are equal again. */
static void check_events(int fd)
{
	static char is[ROOM];
	ssize_t n = read(fd, is, sizeof(is)), i = 0;
	uint32_t was = 0, now = 0;

	while (i < n && i < length) {
		const struct inotify_event *x = at(is, i), *y = at(expected, i);

		CHECKF(x->wd == y->wd && x->mask == y->mask && x->len == y->len,
		       "at %zd: watch %d, %#x, %u bytes, should be %d, %#x, %u", i, x->wd, x->mask,
		       x->len, y->wd, y->mask, y->len);
		CHECKF(!memcmp(x->name, y->name, x->len), "a name is %s, not %s", x->name, y->name);
		CHECK_EQUAL(!x->cookie, !y->cookie);
		if (x->cookie)
			CHECK_EQUAL(x->cookie == now, y->cookie == was);
		now = x->cookie;
		was = y->cookie;
		i += (ssize_t)sizeof(*x) + x->len;
	}
	CHECK_EQUAL(n, length);
}

static int from_pair(void)
{
	char byte, room[CMSG_SPACE(sizeof(int))];
	struct iovec io = {&byte, 1};
	struct msghdr m = {.msg_iov = &io,
			   .msg_iovlen = 1,
			   .msg_control = room,
			   .msg_controllen = sizeof(room)};
	int fd;

	CHECK_EQUAL(recvmsg(pair[1], &m, 0), 1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	return fd;
}

static void into_pair(int fd)
{
	char byte = 0, room[CMSG_SPACE(sizeof(int))] = {};
	struct iovec io = {&byte, 1};
	struct msghdr m = {.msg_iov = &io,
			   .msg_iovlen = 1,
			   .msg_control = room,
			   .msg_controllen = sizeof(room)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	CHECK_EQUAL(sendmsg(pair[0], &m, 0), 1);
	close(fd);
}

static void set_up(void)
{
	CHECK(!mkdir("watched", 0700) && !mkdir("other", 0700) && !mkdir("empty", 0700));
	for (const char *const *name = (const char *const[]){"old", "once", "here", "going", NULL};
	     *name; name++)
		touch(*name);
	for (int i = 0; i < 2; i++)
		in[i] = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	over = inotify_init1(IN_NONBLOCK);
	CHECK(in[0] >= 0 && in[1] >= 0 && over >= 0);
	watch_path("watched", IN_ALL_EVENTS);
	watch_path("other", IN_ALL_EVENTS & ~(uint32_t)IN_OPEN);
	in_directories();
	of_files();
	of_mounts();
	overflow();
	length = read(in[1], expected, sizeof(expected));
	CHECK(length > 1000);
}

int main(void)
{
	struct inotify_event event;
	struct pollfd p;
	int wd;

	test_init();
	set_up();
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	into_pair(in[0]);

	test_wait();
	in[0] = from_pair();
	if (test_break(1))
		CHECK(read(in[0], expected + ROOM / 2, 64) > 0);
	if (test_break(2))
		touch("watched/more");
	if (test_break(3))
		CHECK(read(over, &event, sizeof(event)) > 0);
	if (test_break(4))
		CHECK(inotify_add_watch(in[0], ".", IN_CREATE) > 0);
	p = (struct pollfd){.fd = in[0], .events = POLLIN};
	CHECK_EQUAL(poll(&p, 1, 0), 1);
	check_events(in[0]);
	check_overflow();
	wd = inotify_add_watch(in[0], "new", IN_OPEN);
	CHECK(wd < 0);
	touch("new");
	wd = inotify_add_watch(in[0], "new", IN_OPEN);
	CHECK_EQUAL(inotify_add_watch(in[1], "new", IN_OPEN), wd);
	CHECK(!mkdir("other/last", 0700));
	length = read(in[1], expected, sizeof(expected));
	CHECK(length > 0);
	check_events(in[0]);
	test_pass();
}
