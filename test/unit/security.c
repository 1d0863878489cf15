/* SPDX-License-Identifier: Apache-2.0 */
/* Labels of security modules, which not every kernel has: from files that look like those of /proc.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "kernel/security.h"
#include "unit.h"

static int directory = -1;

static void put(const char *path, const char *text)
{
	char part[64];

	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		assert_true(mkdirat(directory, part, 0755) == 0 || errno == EEXIST);
	}
	{
		_cleanup_(close_fd) int fd =
			openat(directory, path, O_CREAT | O_TRUNC | O_WRONLY, 0644);

		assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	}
}

static int begin(void **state)
{
	char *name = strdup("/tmp/unit-security.XXXXXX");

	*state = mkdtemp(name);
	directory = open(name, O_RDONLY | O_DIRECTORY);
	return directory < 0;
}

static int end(void **state)
{
	static const char *const paths[] = {"5/attr/current",
					    "5/attr",
					    "5",
					    "7/task/7/attr/current",
					    "7/task/7/attr",
					    "7/task/7",
					    "7/task/8/attr/current",
					    "7/task/8/attr",
					    "7/task/8",
					    "7/task",
					    "7"};

	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		if (unlinkat(directory, paths[i], 0) < 0)
			unlinkat(directory, paths[i], AT_REMOVEDIR);
	close(directory);
	rmdir(*state);
	free(*state);
	return 0;
}

static int compare(const char *own, const char *first, const char *second, struct error *e)
{
	struct frozen_process f = {.pid = 7};
	struct checkpoint_process p = {.frozen = &f, .tid = 7};
	struct checkpoint c = {.proc_fd = directory, .self = 5};
	_cleanup_(free_ptr) char *label = NULL;
	int r;

	put("5/attr/current", own);
	put("7/task/7/attr/current", first);
	put("7/task/8/attr/current", second);
	for (pid_t tid = 7; tid <= 8; tid++)
		((struct frozen_thread *)vec_push(&f.threads))->tid = tid;
	assert_true(security_label_own(&c, &label) >= 0);
	r = security_compare_labels(&c, label, &p, e);
	vec_free(&f.threads);
	return r;
}

static void test_same_label(void **state)
{
	struct error e = {};

	assert_int_equal(compare("unconfined\n", "unconfined\n", "unconfined\n", &e), 0);
}

static void test_another_label(void **state)
{
	struct error e = {};

	assert_int_equal(compare("unconfined\n", "web (enforce)\n", "unconfined\n", &e), -EPERM);
	assert_int_equal(e.code, E_TASK_SECURITY);
	assert_non_null(strstr(e.text, "'web (enforce)'"));
}

static void test_label_of_a_thread(void **state)
{
	struct error e = {};

	assert_int_equal(compare("unconfined\n", "unconfined\n", "hat\n", &e), -EPERM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_same_label, begin, end),
		cmocka_unit_test_setup_teardown(test_another_label, begin, end),
		cmocka_unit_test_setup_teardown(test_label_of_a_thread, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
