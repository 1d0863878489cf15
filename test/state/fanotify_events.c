/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unread events of fanotify: by descriptors, by handles, by names, of threads; of the process, of a
 * child; on files and directories, merged or not; in a queue that has overflowed. A second group of
 * each kind has had the same events and was read: it says what should be there. The files are not
 * changed.
 *
 * not-in: both: each copy would see what the other does
 * not-in: user: needs root
 * may-refuse: file-events
 */
#include "harness.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const names[] = {"in", "in/read", "in/written", "in/text", "in/sub", "alone"};
#define NAMES (sizeof(names) / sizeof(names[0]))

#include "fanotify_tell.h"

#define ALL \
	(FAN_OPEN | FAN_ACCESS | FAN_MODIFY | FAN_CLOSE_WRITE | FAN_CLOSE_NOWRITE | FAN_OPEN_EXEC)

struct kind {
	unsigned int flags;
	uint64_t of_files; /* told of files in "in" */
	int groups[2];
	char expected[ROOM];
};

static struct kind kinds[] = {
	{0, ALL | FAN_ONDIR},
	{FAN_UNLIMITED_QUEUE, FAN_CLOSE_WRITE},
	{FAN_REPORT_PIDFD, FAN_MODIFY | FAN_OPEN_EXEC},
	{FAN_REPORT_TID, (ALL & ~(uint64_t)FAN_MODIFY) | FAN_ONDIR},
	{FAN_REPORT_FID, ALL},
	{FAN_REPORT_DFID_NAME, ALL},
	{FAN_REPORT_DIR_FID | FAN_REPORT_FID, FAN_OPEN | FAN_CLOSE},
	{FAN_REPORT_DFID_NAME | FAN_REPORT_FID | FAN_REPORT_TARGET_FID, ALL | FAN_ONDIR},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static int over, limit, *done;
static pthread_t thread;

static void check(const struct kind *k)
{
	static char is[ROOM];

	tell(k->groups[0], is);
	CHECKF(!strcmp(is, k->expected), "a group with %#x tells:\n%sand not:\n%s", k->flags, is,
	       k->expected);
}

/* ---- what is done ---- */

static void read_file(const char *path)
{
	char byte;
	int fd = open(path, O_RDONLY);

	CHECK(fd >= 0 && read(fd, &byte, 1) == 1);
	close(fd);
}

static void do_all(void)
{
	int fd, written = open("in/written", O_WRONLY);

	read_file("in/read");
	CHECK(written >= 0 && write(written, "x", 1) == 1);
	fd = open("in/sub", O_RDONLY | O_DIRECTORY);
	read_file("alone");
	close(fd);
	close(written);
}

static int in_child(void *arg)
{
	execl("in/text", "text", NULL);
	CHECK_EQUAL(errno, ENOEXEC);
	do_all();
	done[0] = 1;
	test_hold();
	return 3;
}

static void *in_thread(void *arg)
{
	read_file("in/read");
	read_file("alone");
	done[1] = 1;
	test_hold();
	return NULL;
}

/* ---- an overflow ---- */

static void touch_many(int directory, int from, int to)
{
	for (int i = from; i < to; i++) {
		char name[16];
		int fd;

		snprintf(name, sizeof(name), "%d", i);
		fd = openat(directory, name, O_RDWR | O_CREAT, 0600);
		CHECK(fd >= 0);
		close(fd);
	}
}

static void mark_over(int directory, unsigned int how)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", directory);
	CHECK(!fanotify_mark(over, how, FAN_OPEN | FAN_EVENT_ON_CHILD, AT_FDCWD, path));
}

/* What fills the queue is on a file system that is there for that alone. */
static int make_fs(void)
{
	int fs = fsopen("tmpfs", 0), mount;

	CHECK(fs >= 0 && !fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	mount = fsmount(fs, 0, 0);
	CHECK(mount >= 0);
	close(fs);
	return mount;
}

/* So that ten events are before it, and ten behind. */
static void overflow(void)
{
	struct fanotify_event_metadata event;
	FILE *f = fopen("/proc/sys/fs/fanotify/max_queued_events", "r");
	int many, other = make_fs();

	CHECK(f && fscanf(f, "%d", &limit) == 1);
	fclose(f);
	if (limit > 20000)
		test_skip("a queue of %d events is too long", limit);
	CHECK(!mkdir("many", 0700));
	many = open("many", O_RDONLY | O_DIRECTORY);
	over = fanotify_init(FAN_NONBLOCK | FAN_CLOEXEC, O_RDONLY);
	mark_over(other, FAN_MARK_ADD);
	mark_over(many, FAN_MARK_ADD);
	touch_many(other, 0, limit - 10);
	touch_many(many, limit - 10, limit + 5);
	for (int i = 0; i < limit - 10; i++) {
		CHECK_EQUAL(read(over, &event, sizeof(event)), (ssize_t)sizeof(event));
		close(event.fd);
	}
	touch_many(many, limit + 5, limit + 15);
	mark_over(other, FAN_MARK_REMOVE);
	close(other);
	close(many);
}

static void check_overflow(void)
{
	struct fanotify_event_metadata event;
	char path[32];
	struct stat is, st;

	for (int i = limit - 10; i < limit + 15; i++) {
		if (i > limit && i < limit + 5)
			continue;
		CHECK_EQUAL(read(over, &event, sizeof(event)), (ssize_t)sizeof(event));
		if (i == limit) {
			CHECK_EQUAL(event.mask, FAN_Q_OVERFLOW);
			continue;
		}
		CHECK_EQUAL(event.mask, FAN_OPEN);
		snprintf(path, sizeof(path), "many/%d", i);
		CHECK(!stat(path, &st) && !fstat(event.fd, &is));
		CHECK_EQUAL(is.st_ino, st.st_ino);
		close(event.fd);
	}
	CHECK(read(over, &event, sizeof(event)) < 0 && errno == EAGAIN);
}

/* ---- */

/* Before AT_EXECVE_CHECK (6.14) events of executing cannot be caused again. */
static uint64_t executing(void)
{
	return syscall(SYS_execveat, -1, "", NULL, NULL, AT_EMPTY_PATH | 0x10000) < 0 &&
			       errno == EBADF
		       ? 0
		       : FAN_OPEN_EXEC;
}

static void watch(struct kind *k, uint64_t without)
{
	for (int i = 0; i < 2; i++) {
		k->groups[i] = fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK | k->flags, O_RDONLY);
		if (k->groups[i] < 0 && errno == EPERM)
			test_skip("fanotify: %s", strerror(errno));
		CHECK(k->groups[i] >= 0);
		CHECK(!fanotify_mark(k->groups[i], FAN_MARK_ADD,
				     (k->of_files & ~without) | FAN_EVENT_ON_CHILD, AT_FDCWD,
				     "in"));
		CHECK(!fanotify_mark(
			k->groups[i], FAN_MARK_ADD,
			ALL & ~without & ~(uint64_t)FAN_ACCESS &
				(k->flags & FAN_REPORT_TID ? ~(uint64_t)FAN_MODIFY : ~0ull),
			AT_FDCWD, "alone"));
	}
}

static void set_up(void)
{
	const uint64_t without = executing();
	int text;

	CHECK(!mkdir("in", 0700) && !mkdir("in/sub", 0700));
	test_write("in/read", "read", 4);
	test_write("in/written", "", 0);
	test_write("alone", "alone", 5);
	text = open("in/text", O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
	CHECK(text >= 0 && write(text, "no program\n", 11) == 11);
	close(text);
	done = test_shared(4096);
	for (size_t i = 0; i < KINDS; i++)
		watch(&kinds[i], without);
	overflow();
}

int main(void)
{
	struct kind *k = kinds;
	pid_t pid;

	test_init();
	set_up();
	do_all();
	pid = test_fork(in_child, NULL);
	CHECK(!pthread_create(&thread, NULL, in_thread, NULL));
	while (!done[0] || !done[1])
		usleep(1000);
	for (size_t i = 0; i < KINDS; i++)
		tell(kinds[i].groups[1], kinds[i].expected);
	CHECK(strlen(kinds[0].expected) > 100);
	note_files();

	test_wait();
	check_unchanged(true);
	if (test_break(1))
		read_file("in/read");
	if (test_break(2))
		tell(kinds[5].groups[0], kinds[5].expected + ROOM / 2);
	if (test_break(3))
		CHECK(read(over, kinds[5].expected + ROOM / 2, FAN_EVENT_METADATA_LEN) > 0);
	for (k = kinds; k < kinds + KINDS; k++)
		check(k);
	check_overflow();
	do_all();
	for (k = kinds; k < kinds + KINDS; k++) {
		tell(k->groups[1], k->expected);
		CHECK(*k->expected);
		check(k);
	}
	CHECK(!pthread_join(thread, NULL));
	test_reap(pid, 3);
	test_pass();
}
