/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unread events of fanotify of what was made, removed and renamed, of files and directories that
 * have gone since, by handles and by names, by processes that have ended and by us. A second group
 * of each kind has had the same events and was read: it says what should be there. Nothing is
 * changed in the directories.
 *
 * not-in: both: each copy would see what the other does
 * not-in: user: needs root
 * may-refuse: file-events
 */
#include "harness.h"

#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[] = {"in", "in/kept", "in/sub", "out", "in/made", "in/dir"};
#define NAMES (sizeof(names) / sizeof(names[0]))

#include "fanotify_tell.h"

#define ENTRIES (FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO)
#define OF_FILE                                                                                  \
	(FAN_OPEN | FAN_ACCESS | FAN_MODIFY | FAN_CLOSE_WRITE | FAN_CLOSE_NOWRITE | FAN_ATTRIB | \
	 FAN_OPEN_EXEC)
#define SELF (FAN_DELETE_SELF | FAN_MOVE_SELF)

struct kind {
	unsigned int flags;
	uint64_t of_files, of_out, of_sub;
	int groups[2];
	char expected[ROOM];
};

static struct kind kinds[] = {
	{FAN_REPORT_DFID_NAME, ENTRIES | OF_FILE | FAN_ONDIR, FAN_CREATE, SELF | FAN_ONDIR},
	{FAN_REPORT_DFID_NAME, ENTRIES, 0, 0},
	{FAN_REPORT_DFID_NAME, FAN_RENAME | FAN_ONDIR, FAN_RENAME | FAN_ONDIR, 0},
	{FAN_REPORT_DFID_NAME, FAN_RENAME, 0, FAN_MOVE_SELF | FAN_ONDIR},
	{FAN_REPORT_DFID_NAME, 0, FAN_RENAME | FAN_ONDIR, 0},
	{FAN_REPORT_FID, ENTRIES | FAN_ONDIR, FAN_MOVED_TO, SELF | FAN_ATTRIB | FAN_ONDIR},
	{FAN_REPORT_FID, OF_FILE | SELF, 0, 0},
	{FAN_REPORT_DIR_FID, ENTRIES | FAN_OPEN | FAN_ONDIR, 0, 0},
	{FAN_REPORT_DFID_NAME | FAN_REPORT_FID, ENTRIES | OF_FILE | FAN_ONDIR, 0, 0},
	{FAN_REPORT_DFID_NAME | FAN_REPORT_FID | FAN_REPORT_TARGET_FID, ENTRIES | FAN_CLOSE, 0, 0},
	{FAN_REPORT_DFID_NAME | FAN_REPORT_FID | FAN_REPORT_TARGET_FID,
	 (ENTRIES & ~FAN_CREATE) | FAN_ONDIR, 0, 0},
	{FAN_REPORT_DFID_NAME | FAN_REPORT_FID | FAN_REPORT_TARGET_FID, FAN_RENAME | FAN_ONDIR,
	 FAN_RENAME | FAN_ONDIR, 0},
	{FAN_REPORT_FID | FAN_REPORT_TID, ENTRIES | FAN_MODIFY, 0, 0},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void add_mark(int group, uint64_t mask, const char *path)
{
	if (mask & ~(uint64_t)FAN_ONDIR)
		CHECK(!fanotify_mark(group, FAN_MARK_ADD, mask, AT_FDCWD, path));
}

static int watch(const struct kind *k)
{
	int group = fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK | k->flags, O_RDONLY);

	if (group < 0 && (errno == EPERM || errno == EINVAL))
		test_skip("fanotify: %s", strerror(errno));
	CHECK(group >= 0);
	add_mark(group, k->of_files | (k->of_files & OF_FILE ? FAN_EVENT_ON_CHILD : 0), "in");
	add_mark(group, k->of_out, "out");
	return group;
}

/* A user may have 128 groups, in all tests that run at once: but for the first, what has told what
 * is expected is given up meanwhile. */
static void give_up(struct kind *k)
{
	if (k == kinds)
		return;
	CHECK(!close(k->groups[1]));
	k->groups[1] = -1;
}

/* What is removed in the end, and what stays. */
static int do_all(void *arg)
{
	test_write("in/file", "file", 4);
	CHECK(!rename("in/file", "in/other") && !unlink("in/other"));
	test_write("out/here", "", 0);
	CHECK(!rename("out/here", "in/here") && !rename("in/here", "out/away"));
	CHECK(!unlink("out/away"));
	CHECK(!mkdir("in/adir", 0700) && !rename("in/adir", "in/bdir") && !rmdir("in/bdir"));
	test_write("in/kept", "more", 4);
	CHECK(!chmod("in/kept", 0640));
	return 3;
}

static void cause_all(void)
{
	do_all(NULL);
	test_reap(test_fork(do_all, NULL), 3);
}

/* Once. */
static void make_and_remove(void)
{
	test_write("in/made", "made", 4);
	CHECK(!mkdir("in/dir", 0700));
	CHECK(!rename("in/sub/gone", "in/sub/went") && !rmdir("in/sub/went"));
}

static void check(const struct kind *k)
{
	static char is[ROOM];

	tell(k->groups[0], is);
	CHECKF(!strcmp(is, k->expected), "group %d with %#x tells:\n%sand not:\n%s",
	       (int)(k - kinds), k->flags, is, k->expected);
}

int main(void)
{
	struct kind *k = kinds;

	test_init();
	CHECK(!mkdir("in", 0700) && !mkdir("in/sub", 0700) && !mkdir("in/sub/gone", 0700));
	CHECK(!mkdir("out", 0700));
	test_write("in/kept", "kept", 4);
	for (k = kinds; k < kinds + KINDS; k++)
		for (int i = 0; i < 2; i++) {
			k->groups[i] = watch(k);
			add_mark(k->groups[i], k->of_sub, "in/sub/gone");
		}
	cause_all();
	make_and_remove();
	for (size_t i = 0; i < KINDS; i++) {
		tell(kinds[i].groups[1], kinds[i].expected);
		CHECKF(strlen(kinds[i].expected) > 30, "group %zu: %s", i, kinds[i].expected);
		give_up(&kinds[i]);
	}
	note_files();

	test_wait();
	check_unchanged(false);
	if (test_break(1))
		CHECK(!rename("in/made", "in/mad"));
	if (test_break(2))
		tell(kinds[1].groups[0], kinds[1].expected + ROOM / 2);
	for (k = kinds; k < kinds + KINDS; k++)
		check(k);
	for (k = kinds + 1; k < kinds + KINDS; k++)
		k->groups[1] = watch(k);
	cause_all();
	for (k = kinds; k < kinds + KINDS; k++) {
		tell(k->groups[1], k->expected);
		CHECK(*k->expected);
		check(k);
	}
	test_pass();
}
