/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/scratch.h"
#include "core/vec.h"
#include "unit.h"

static void test_scratch(void **state)
{
	struct scratch s = {};
	unsigned char *small, *big;

	small = scratch_alloc(&s, 10);
	assert_non_null(small);
	big = scratch_alloc(&s, 1 << 20);
	assert_non_null(big);
	memset(big, 0xff, 1 << 20);
	for (int i = 0; i < 10000; i++) {
		unsigned char *p = scratch_alloc(&s, 24);

		assert_int_equal((uintptr_t)p % 16, 0);
		for (int j = 0; j < 24; j++)
			assert_int_equal(p[j], 0);
		memset(p, 0xff, 24);
	}
	for (int i = 0; i < 10; i++)
		assert_int_equal(small[i], 0);
	assert_string_equal(scratch_string(&s, "abc"), "abc");
	assert_non_null(scratch_copy(&s, NULL, 0));
	assert_null(scratch_alloc(&s, SIZE_MAX));
	assert_null(scratch_alloc(&s, SIZE_MAX - 40));
	scratch_free(&s);
	scratch_free(&s);
}

static void test_vec(void **state)
{
	VEC(int) v = {};
	int sum = 0;

	for (int i = 0; i < 1000; i++) {
		int *p = vec_push(&v);

		assert_non_null(p);
		assert_int_equal(*p, 0);
		*p = i;
	}
	vec_for_each (it, &v)
		sum += *it;
	assert_int_equal(sum, 499500);
	vec_free(&v);
	assert_null(v.v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scratch),
		cmocka_unit_test(test_vec),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
