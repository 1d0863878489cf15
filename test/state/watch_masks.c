/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each event that inotify and fanotify can be asked for, alone, on files and directories, mounts
 * and file systems, also as one to be ignored: what fdinfo tells of them is the same afterwards.
 *
 * not-in: both: each copy would see what the other does
 * not-in: container: files that come back with it have other inode numbers
 * timeout: 60
 */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define BITS 32
#define MOST 20

static struct group {
	int fd;
	char *told;
} groups[MOST];
static int count;

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In any order, without the numbers of mounts and that of the inode of all such files. */
static char *told(int fd)
{
	char path[64], *text = calloc(1, 65536), *ret = calloc(1, 65536), *lines[64], *rest = text;
	size_t n = 0;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	test_read(path, text, 65536);
	for (char *at = text; (at = strstr(at, "mnt_id:"));) {
		char *end = at + strcspn(at, " \n");

		memmove(at, end, strlen(end) + 1);
	}
	while (n < 64 && (lines[n] = strsep(&rest, "\n")))
		n += strncmp(lines[n], "ino:", 4) != 0;
	qsort(lines, n, sizeof(lines[0]), by_text);
	for (size_t i = 0; i < n; i++)
		strcat(strcat(ret, lines[i]), "\n");
	free(text);
	return ret;
}

static void keep(int fd)
{
	CHECK(count < MOST);
	groups[count++].fd = fd;
}

/* An inode has one watch in a group: each bit has a file of its own. */
static void watch_all(const char *name, uint32_t also)
{
	int fd = inotify_init1(IN_NONBLOCK), kept = 0;

	for (int bit = 0; bit < 12; bit++) {
		char path[64];

		snprintf(path, sizeof(path), "%s%d", name, bit);
		kept += inotify_add_watch(fd, path, 1u << bit | also) > 0;
	}
	CHECK_EQUAL(kept, 12);
	keep(fd);
}

static void mark_all(unsigned int class, unsigned int flags, const char *name, uint64_t also)
{
	int fd = fanotify_init(class | FAN_NONBLOCK, O_RDONLY);

	if (fd < 0)
		return;
	for (int bit = 0; bit < BITS; bit++) {
		char path[64];

		snprintf(path, sizeof(path), "%s%d", name, bit);
		if (1ull << bit != FAN_ONDIR && 1ull << bit != FAN_EVENT_ON_CHILD)
			(void)!fanotify_mark(fd, FAN_MARK_ADD | flags, 1ull << bit | also, AT_FDCWD,
					     path);
	}
	keep(fd);
}

static void mark_mount(unsigned int flags, uint64_t mask)
{
	int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY);

	CHECK(fd >= 0 && !fanotify_mark(fd, FAN_MARK_ADD | flags, mask, AT_FDCWD, "/sys"));
	keep(fd);
}

int main(void)
{
	char path[64];

	test_init();
	for (int i = 0; i < BITS; i++) {
		snprintf(path, sizeof(path), "directory%d", i);
		CHECK(!mkdir(path, 0700));
		snprintf(path, sizeof(path), "file%d", i);
		test_write(path, "", 0);
	}
	watch_all("file", 0);
	watch_all("directory", IN_EXCL_UNLINK);
	watch_all("directory", IN_ONESHOT | IN_ONLYDIR | IN_DONT_FOLLOW);
	mark_all(FAN_CLASS_NOTIF | FAN_REPORT_FID, 0, "file", 0);
	mark_all(FAN_CLASS_NOTIF | FAN_REPORT_FID, 0, "directory", FAN_ONDIR | FAN_EVENT_ON_CHILD);
	mark_all(FAN_REPORT_DFID_NAME, 0, "directory", FAN_EVENT_ON_CHILD);
	if (!geteuid()) {
		mark_all(FAN_CLASS_NOTIF, 0, "directory", FAN_ONDIR);
		mark_all(FAN_CLASS_NOTIF | FAN_CLOEXEC, FAN_MARK_IGNORED_MASK, "file", 0);
		mark_all(FAN_REPORT_FID, FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY,
			 "file", 0);
		mark_all(FAN_REPORT_FID, 0x400 /* FAN_MARK_IGNORE */ | FAN_MARK_IGNORED_SURV_MODIFY,
			 "directory", FAN_ONDIR);
		mark_mount(FAN_MARK_MOUNT, FAN_CLOSE_WRITE);
		mark_mount(FAN_MARK_MOUNT, FAN_MODIFY | FAN_OPEN_EXEC | FAN_ONDIR);
		mark_mount(FAN_MARK_FILESYSTEM, FAN_MODIFY);
	}
	for (int i = 0; i < count; i++)
		groups[i].told = told(groups[i].fd);

	test_wait();
	if (test_break(1))
		CHECK(inotify_add_watch(groups[0].fd, "file3", IN_MODIFY) > 0);
	for (int i = 0; i < count; i++) {
		char *now = told(groups[i].fd);

		CHECKF(!strcmp(now, groups[i].told), "group %d: %s\nwas\n%s", i, now,
		       groups[i].told);
		free(now);
	}
	test_pass();
}
