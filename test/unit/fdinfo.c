/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>

#include "fs/fdinfo.h"
#include "unit.h"

static void test_common(void **state)
{
	struct fdinfo info;

	assert_int_equal(
		fdinfo_parse("pos:\t4096\nflags:\t02104002\nmnt_id:\t29\nino:\t811\n", &info), 0);
	assert_int_equal(info.pos, 4096);
	assert_int_equal(info.flags & O_ACCMODE, O_RDWR);
	assert_true(info.flags & O_CLOEXEC);
	assert_int_equal(info.mnt_id, 29);
	assert_int_equal(info.ino, 811);
	assert_int_equal(fdinfo_parse("pos:\t0\nflags:\t0\nmnt_id:\t15\n", &info), 0);
	assert_int_equal(info.ino, 0);
}

static void test_common_damaged(void **state)
{
	struct fdinfo info;

	assert_int_equal(fdinfo_parse("", &info), -EINVAL);
	assert_int_equal(fdinfo_parse("pos:\t0\nmnt_id:\t15\n", &info), -EINVAL);
	assert_int_equal(fdinfo_parse("pos:\tx\nflags:\t0\nmnt_id:\t15\n", &info), -EINVAL);
	assert_int_equal(fdinfo_parse("pos:\t0\nflags:\t09\nmnt_id:\t15\n", &info), -EINVAL);
	assert_int_equal(fdinfo_parse("pos:\t0\nflags:\t0\nmnt_id:\t99999999999\n", &info),
			 -EINVAL);
}

static void test_locks(void **state)
{
	const char *text = "pos:\t0\nflags:\t02\nmnt_id:\t29\n"
			   "lock:\t1: POSIX  ADVISORY  WRITE 4242 fe:00:12345 5 14\n"
			   "lock:\t2: FLOCK  ADVISORY  READ 4242 fe:00:12345 0 EOF\n"
			   "lock:\t3: OFDLCK ADVISORY  READ -1 fe:00:12345 100 EOF\n"
			   "lock:\t4: LEASE  BREAKING  UNLCK 4242 fe:00:12345 0 EOF\n"
			   "lock:\t5: LEASE  ACTIVE    WRITE 4242 fe:00:12345 0 EOF\n";
	struct fdinfo_lock lock;

	assert_int_equal(fdinfo_next_lock(&text, &lock), 1);
	assert_int_equal(lock.type, LOCK_POSIX);
	assert_true(lock.write);
	assert_int_equal(lock.pid, 4242);
	assert_int_equal(lock.start, 5);
	assert_int_equal(lock.end, 14);
	assert_int_equal(fdinfo_next_lock(&text, &lock), 1);
	assert_int_equal(lock.type, LOCK_FLOCK);
	assert_false(lock.write);
	assert_true(lock.end == INT64_MAX);
	assert_int_equal(fdinfo_next_lock(&text, &lock), 1);
	assert_int_equal(lock.type, LOCK_OFD);
	assert_int_equal(lock.pid, -1);
	assert_int_equal(lock.start, 100);
	assert_int_equal(fdinfo_next_lock(&text, &lock), 1);
	assert_int_equal(lock.type, LOCK_LEASE);
	assert_true(lock.breaking);
	assert_int_equal(fdinfo_next_lock(&text, &lock), 1);
	assert_int_equal(lock.type, LOCK_LEASE);
	assert_false(lock.breaking);
	assert_true(lock.write);
	assert_int_equal(fdinfo_next_lock(&text, &lock), 0);
}

static void test_copy_line(void **state)
{
	char line[8];

	fdinfo_copy_line("first\nsecond", line, sizeof(line));
	assert_string_equal(line, "first");
	fdinfo_copy_line("too long for it\n", line, sizeof(line));
	assert_string_equal(line, "too lon");
	fdinfo_copy_line("", line, sizeof(line));
	assert_string_equal(line, "");
}

static void test_locks_damaged(void **state)
{
	static const char *const lines[] = {
		"lock:\t1: WHATEVER ADVISORY WRITE 1 fe:00:1 0 EOF\n",
		"lock:\t1: POSIX ADVISORY SOMETHING 1 fe:00:1 0 EOF\n",
		"lock:\t1: POSIX ADVISORY UNLCK 1 fe:00:1 0 EOF\n",
		"lock:\t1: POSIX ADVISORY WRITE 1 fe:00:1 0\n",
		"lock:\t1: POSIX ADVISORY WRITE 1 fe:00:1 10 9\n",
		"lock:\t1: POSIX ADVISORY WRITE 1 fe:00:1 10 x\n",
		"lock:\t1: -> POSIX ADVISORY WRITE 1 fe:00:1 0 EOF\n",
		"lock:",
	};
	struct fdinfo_lock lock;

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		const char *text = lines[i];

		assert_int_equal(fdinfo_next_lock(&text, &lock), -EINVAL);
		assert_int_equal(*text, '\0');
	}
}

static void test_lines(void **state)
{
	const char *text = "a: 1\ntfd: 5\ntfd: 6";

	assert_true(fdinfo_find_line(&text, "tfd:"));
	assert_int_equal(text[5], '5');
	fdinfo_skip_line(&text);
	assert_true(fdinfo_find_line(&text, "tfd:"));
	assert_int_equal(text[5], '6');
	fdinfo_skip_line(&text);
	assert_false(fdinfo_find_line(&text, "tfd:"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_common),	      cmocka_unit_test(test_common_damaged),
		cmocka_unit_test(test_locks),	      cmocka_unit_test(test_copy_line),
		cmocka_unit_test(test_locks_damaged), cmocka_unit_test(test_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
