/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "unit.h"

static void test_one_line(void **state)
{
	struct error e = {};
	char line[2048];

	assert_int_equal(error_set(&e, -EBUSY, E_FILE_KIND, "is a %s", "perf event"), -EBUSY);
	assert_int_equal(error_object(&e, -EBUSY, "descriptor %d", 7), -EBUSY);
	assert_int_equal(error_object(&e, -EBUSY, "task 4242 (redis-server)"), -EBUSY);
	error_format(&e, line, sizeof(line));
	assert_string_equal(line, "task 4242 (redis-server), descriptor 7: is a perf event; "
				  "close it before the checkpoint, or declare it external "
				  "(--external) [file-kind]");
}

static void test_own_advice(void **state)
{
	struct error e = {};
	char line[2048];

	error_set(&e, -EBUSY, E_FILE_STATE, "it holds messages; try again");
	error_format(&e, line, sizeof(line));
	assert_string_equal(line,
			    "it holds messages; try again, or close it before the checkpoint, "
			    "or declare it external (--external) [file-state]");
}

static void test_first_cause_stays(void **state)
{
	struct error e = {};

	error_set(&e, -EPERM, E_PERMISSION, "inner");
	assert_int_equal(error_set(&e, -EIO, E_SYSTEM, "outer"), -EIO);
	assert_string_equal(e.text, "inner");
	assert_int_equal(e.code, E_PERMISSION);
	assert_int_equal(e.err, -EPERM);
	error_clear(&e);
	assert_int_equal(e.code, ERROR_NONE);
	assert_string_equal(e.text, "");
}

static void test_never_success(void **state)
{
	struct error e = {};

	assert_int_equal(error_set(&e, 0, E_SYSTEM, "x"), -EIO);
	assert_int_equal(error_set(NULL, 0, E_SYSTEM, "x"), -EIO);
	assert_int_equal(error_errno(NULL, EPERM, E_SYSTEM, "x"), -EPERM);
	assert_int_equal(error_object(NULL, -EPERM, "x"), -EPERM);
}

static void test_errno(void **state)
{
	struct error e = {};
	char line[256];

	error_errno(&e, -ENOSPC, E_SYSTEM, "cannot write %s", "/x");
	error_format(&e, line, sizeof(line));
	assert_string_equal(line, "cannot write /x: No space left on device [system]");
}

static void test_control_characters(void **state)
{
	struct error e = {};
	char line[256];

	error_set(&e, -ENOENT, E_SYSTEM, "no file a\nb\033[2J");
	error_format(&e, line, sizeof(line));
	assert_string_equal(line, "no file a\\x0ab\\x1b[2J [system]");
}

static void test_long_text_keeps_code(void **state)
{
	struct error e = {};
	char name[4096], line[200];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	error_set(&e, -ENOENT, E_FILE_MISSING, "%s", name);
	for (int i = 0; i < 4; i++)
		error_object(&e, -ENOENT, "%s", name);
	error_format(&e, line, sizeof(line));
	assert_true(strlen(line) < sizeof(line));
	assert_non_null(strstr(line, "[file-missing]"));
	for (size_t size = 0; size < 80; size++)
		error_format(&e, line, size);
}

static void test_codes(void **state)
{
	for (int i = ERROR_NONE + 1; i < ERROR_CODE_COUNT; i++) {
		const struct error_code_info *info = error_code_info(i);

		assert_true(info->name[0] != '\0' && strlen(info->name) < 48);
		assert_int_equal(strspn(info->name, "abcdefghijklmnopqrstuvwxyz0123456789-"),
				 strlen(info->name));
		assert_true(info->explanation[0] != '\0');
		/* Also says that no name is used twice. */
		assert_int_equal(error_code_by_name(info->name), i);
	}
	assert_int_equal(error_code_by_name("no-such-code"), ERROR_NONE);
	assert_int_equal(error_code_by_name(""), ERROR_NONE);
}

static void test_problems(void **state)
{
	struct problems p = {};

	for (int i = 0; i < 100; i++) {
		struct error e = {};

		error_set(&e, -i - 1, E_SYSTEM, "problem %d", i);
		assert_int_equal(problems_add(&p, &e), 0);
		assert_int_equal(e.code, ERROR_NONE);
	}
	assert_int_equal(p.n, 100);
	assert_string_equal(p.v[99].text, "problem 99");
	problems_free(&p);
	assert_int_equal(p.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_line),
		cmocka_unit_test(test_own_advice),
		cmocka_unit_test(test_first_cause_stays),
		cmocka_unit_test(test_never_success),
		cmocka_unit_test(test_errno),
		cmocka_unit_test(test_control_characters),
		cmocka_unit_test(test_long_text_keeps_code),
		cmocka_unit_test(test_codes),
		cmocka_unit_test(test_problems),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
