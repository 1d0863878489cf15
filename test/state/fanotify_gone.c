/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unread events of fanotify by whom nobody can ask any more: processes and threads that have ended.
 * And changes of attributes, by these and by us; and on files that have been removed, with their
 * contents. A second group of each kind has had the same events and was read: it says what should
 * be there. The files are not changed.
 *
 * not-in: both: each copy would see what the other does
 * not-in: user: needs root
 * may-refuse: file-events
 */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[] = {"in", "in/read", "in/written", "in/sub", "alone"};
#define NAMES (sizeof(names) / sizeof(names[0]))

#include "fanotify_tell.h"

#define ALL (FAN_OPEN | FAN_ACCESS | FAN_MODIFY | FAN_CLOSE_WRITE | FAN_CLOSE_NOWRITE)

struct kind {
	unsigned int flags;
	uint64_t of_files; /* told of files in "in" */
	int groups[2];
	char expected[ROOM];
};

static struct kind kinds[] = {
	{0, ALL | FAN_ONDIR},
	{FAN_REPORT_PIDFD, ALL},
	{FAN_REPORT_TID, (ALL & ~(uint64_t)FAN_MODIFY) | FAN_ONDIR},
	{FAN_REPORT_FID, ALL | FAN_ATTRIB},
	{FAN_REPORT_FID, FAN_ATTRIB},
	{FAN_REPORT_DFID_NAME, ALL | FAN_ATTRIB},
	{FAN_REPORT_DFID_NAME | FAN_REPORT_FID | FAN_REPORT_TARGET_FID, FAN_ATTRIB | FAN_CLOSE},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static int removed; /* a group that is told of files that are */
static pid_t remover;

static void do_all(void)
{
	char byte;
	int fd = open("in/read", O_RDONLY);

	CHECK(fd >= 0 && read(fd, &byte, 1) == 1 && !close(fd));
	fd = open("in/written", O_WRONLY);
	CHECK(fd >= 0 && write(fd, "x", 1) == 1 && !close(fd));
	fd = open("in/sub", O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0 && !close(fd));
	CHECK(!chmod("in/written", 0640) && !chmod("alone", 0640));
}

static int in_child(void *arg)
{
	do_all();
	return 3;
}

static void *in_thread(void *arg)
{
	do_all();
	return NULL;
}

static int remove_one(void *arg)
{
	int fd = open("else/removed", O_RDWR | O_CREAT | O_EXCL, 0600);

	CHECK(fd >= 0 && write(fd, "contents", 8) == 8 && !close(fd) && !unlink("else/removed"));
	return 3;
}

static void check_removed(uint64_t mask)
{
	struct fanotify_event_metadata event;
	char data[16];
	struct stat st;

	CHECK_EQUAL(read(removed, &event, sizeof(event)), (ssize_t)sizeof(event));
	CHECK_EQUAL(event.mask, mask);
	CHECK_EQUAL(event.pid, remover);
	CHECK(!fstat(event.fd, &st));
	CHECK_EQUAL(st.st_nlink, 0);
	CHECK_EQUAL(read(event.fd, data, sizeof(data)), 8);
	CHECK(!memcmp(data, "contents", 8));
	close(event.fd);
	CHECK(read(removed, &event, sizeof(event)) < 0 && errno == EAGAIN);
}

static void cause_removed(void)
{
	remover = test_fork(remove_one, NULL);
	test_reap(remover, 3);
}

static int in_thread_of_child(void *arg)
{
	pthread_t thread;

	CHECK(!pthread_create(&thread, NULL, in_thread, NULL) && !pthread_join(thread, NULL));
	return 3;
}

static void watch(struct kind *k)
{
	for (int i = 0; i < 2; i++) {
		k->groups[i] = fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK | k->flags, O_RDONLY);
		if (k->groups[i] < 0 && errno == EPERM)
			test_skip("fanotify: %s", strerror(errno));
		CHECK(k->groups[i] >= 0);
		CHECK(!fanotify_mark(k->groups[i], FAN_MARK_ADD, k->of_files | FAN_EVENT_ON_CHILD,
				     AT_FDCWD, "in"));
		CHECK(!fanotify_mark(k->groups[i], FAN_MARK_ADD,
				     k->of_files & (FAN_CLOSE | FAN_ATTRIB), AT_FDCWD, "alone"));
	}
}

static void cause_all(void)
{
	pthread_t thread;

	test_reap(test_fork(in_child, NULL), 3);
	test_reap(test_fork(in_thread_of_child, NULL), 3);
	CHECK(!pthread_create(&thread, NULL, in_thread, NULL) && !pthread_join(thread, NULL));
	do_all();
	test_reap(test_fork(in_child, NULL), 3);
}

static void check(const struct kind *k)
{
	static char is[ROOM];

	tell(k->groups[0], is);
	CHECKF(!strcmp(is, k->expected), "a group with %#x tells:\n%sand not:\n%s", k->flags, is,
	       k->expected);
}

int main(void)
{
	struct kind *k = kinds;

	test_init();
	CHECK(!mkdir("in", 0700) && !mkdir("in/sub", 0700) && !mkdir("else", 0700));
	test_write("in/read", "read", 4);
	test_write("in/written", "", 0);
	test_write("alone", "alone", 5);
	for (size_t i = 0; i < KINDS; i++)
		watch(&kinds[i]);
	cause_all();
	removed = fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY);
	CHECK(!fanotify_mark(removed, FAN_MARK_ADD, FAN_MODIFY | FAN_CLOSE | FAN_EVENT_ON_CHILD,
			     AT_FDCWD, "else"));
	cause_removed();
	for (size_t i = 0; i < KINDS; i++) {
		tell(kinds[i].groups[1], kinds[i].expected);
		CHECK(strlen(kinds[i].expected) > 30);
	}
	note_files();

	test_wait();
	if (test_break(1))
		CHECK(!chmod("alone", 0640));
	check_unchanged(true);
	if (test_break(2))
		tell(kinds[1].groups[0], kinds[1].expected + ROOM / 2);
	for (k = kinds; k < kinds + KINDS; k++)
		check(k);
	check_removed(FAN_MODIFY | FAN_CLOSE_WRITE);
	cause_removed();
	check_removed(FAN_MODIFY | FAN_CLOSE_WRITE);
	for (k = kinds; k < kinds + KINDS; k++)
		for (int i = 0; i < 2; i++)
			tell(k->groups[i], k->expected);
	cause_all();
	for (k = kinds; k < kinds + KINDS; k++) {
		tell(k->groups[1], k->expected);
		CHECK(*k->expected);
		check(k);
	}
	test_pass();
}
