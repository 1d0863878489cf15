/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/btf.h"
#include "core/kernel_memory.h"
#include "unit.h"

static void test_own_task(void **state)
{
	struct kernel_memory *k = NULL;
	char name[16] = "", unused[64];
	struct error e = {};
	uint64_t task;
	int at;

	if (kernel_memory_open(&k, &e) < 0)
		skip(); /* no privilege, or no types */
	assert_int_equal(kernel_task(k, getpid(), &task), 0);
	at = kernel_offset(k, "task_struct", "comm");
	assert_true(at > 0);
	assert_int_equal(prctl(PR_SET_NAME, "some-name"), 0);
	assert_int_equal(kernel_read(k, task + (uint64_t)at, name, sizeof(name)), 0);
	assert_string_equal(name, "some-name");
	/* a member of a member, one of an unnamed member, none */
	assert_int_equal(kernel_offset(k, "list_head", "prev"), 8);
	assert_true(kernel_offset(k, "task_struct", "tasks.prev") ==
		    kernel_offset(k, "task_struct", "tasks") + 8);
	assert_true(kernel_offset(k, "task_struct", "nonsense") < 0);
	assert_true(kernel_offset(k, "nonsense", "comm") < 0);
	assert_int_equal(kernel_size(k, "list_head"), 16);
	/* Where nothing is. */
	assert_true(kernel_read(k, 0, unused, sizeof(unused)) < 0);
	assert_true(kernel_read(k, 4096, unused, sizeof(unused)) < 0);
	assert_true(kernel_read(k, 0x123456789abcdef0, unused, sizeof(unused)) < 0);
	assert_true(kernel_task(k, 0x3ffffff, &task) < 0);
	kernel_memory_free(k);
}

static void test_nonsense(void **state)
{
	const size_t sizes[] = {0, 1, 23, 24, 1000};
	struct btf *b = NULL;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned char *data = malloc(sizes[i] + 1);

		memset(data, 0xeb, sizes[i]);
		assert_true(btf_new(&b, data, sizes[i]) < 0);
		assert_null(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_task),
		cmocka_unit_test(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
