/* SPDX-License-Identifier: Apache-2.0 */
/* What inspect says of open files: also of such as no image that is valid has. */
#include "fs/file.h"
#include "unit.h"

/* inspect validates nothing: a message without the part of its kind is described, too. */
static void test_nothing_in_it(void **state)
{
	(void)state;
	for (size_t i = 0; file_kinds[i]; i++) {
		Reprise__File f = REPRISE__FILE__INIT;
		char text[512] = "";

		f.kind = file_kinds[i]->kind;
		for (f.flags = 0; f.flags < 4 && file_kinds[i]->describe; f.flags++)
			file_kinds[i]->describe(&f, text, sizeof(text));
		assert_true(strnlen(text, sizeof(text)) < sizeof(text));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_nothing_in_it)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
