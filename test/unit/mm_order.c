/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mm/order.h"
#include "unit.h"

static int note(void *arg, size_t node, enum mm_step step, uint32_t stage, struct error *e)
{
	char *text = arg;
	size_t n = strlen(text);

	if (step == MM_STEP_FILL)
		snprintf(text + n, 256 - n, " %zu.%u", node, stage);
	else
		snprintf(text + n, 256 - n, " %c%zu", step == MM_STEP_FORK ? 'f' : 'b', node);
	return 0;
}

static void test_order(void **state)
{
	/* 0 has children 1 (apart), 2 (after stage 0), 3 (a CLONE_VM relative), 4 (after stage 0),
	 * 5 (after stage 1) */
	const struct mm_order_node nodes[] = {
		{.parent = -1, .owner = true, .last_stage = 2},
		{.parent = 0, .owner = true},
		{.parent = 0, .owner = true, .inherits = true, .last_stage = 1},
		{.parent = 0},
		{.parent = 0, .owner = true, .inherits = true},
		{.parent = 0, .owner = true, .inherits = true, .stage = 1},
		{.parent = 2, .owner = true, .inherits = true, .stage = 1},
		{.parent = 3, .owner = true},
	};
	char text[256] = "";

	assert_int_equal(mm_walk(nodes, 8, note, text, NULL), 0);
	assert_string_equal(text, " f0 f1 b1 1.0 f3 f7 b7 7.0 b0 0.0"
				  " f2 b2 2.0 2.1 f6 b6 6.0 f4 b4 4.0 0.1 f5 b5 5.0 0.2");
}

static void test_wrong(void **state)
{
	const struct mm_order_node before[] = {{.parent = 1, .owner = true},
					       {.parent = -1, .owner = true}};
	const struct mm_order_node orphan[] = {{.parent = -1, .owner = true, .inherits = true}};
	const struct mm_order_node late[] = {
		{.parent = -1, .owner = true},
		{.parent = 0, .owner = true, .inherits = true, .stage = 1}};
	const struct mm_order_node zombie[] = {{.parent = -1},
					       {.parent = 0, .owner = true, .inherits = true}};
	char text[256] = "";

	assert_int_equal(mm_walk(before, 2, note, text, NULL), -EINVAL);
	assert_int_equal(mm_walk(orphan, 1, note, text, NULL), -EINVAL);
	assert_int_equal(mm_walk(late, 2, note, text, NULL), -EINVAL);
	assert_int_equal(mm_walk(zombie, 2, note, text, NULL), -EINVAL);
	assert_string_equal(text, "");
	assert_int_equal(mm_walk(NULL, 0, note, text, NULL), 0);
}

static int fail_at_build(void *arg, size_t node, enum mm_step step, uint32_t stage, struct error *e)
{
	++*(int *)arg;
	return step == MM_STEP_BUILD ? -ESRCH : 0;
}

static void test_failure_ends_it(void **state)
{
	const struct mm_order_node nodes[] = {{.parent = -1, .owner = true},
					      {.parent = 0, .owner = true}};
	int steps = 0;

	assert_int_equal(mm_walk(nodes, 2, fail_at_build, &steps, NULL), -ESRCH);
	assert_int_equal(steps, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_failure_ends_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
