/* SPDX-License-Identifier: Apache-2.0 */
/* Anonymous mappings with names. */
#include "harness.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>

int main(void)
{
	char line[256];
	char *at;

	test_init();
	at = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (prctl(0x53564d41, 0, at, 2 * 4096, "my arena"))
		test_skip("this kernel has no names for anonymous memory");
	at[5] = 1;
	test_wait();
	if (test_break(1))
		prctl(0x53564d41, 0, at, 2 * 4096, NULL);
	test_map(at, line, sizeof(line));
	CHECKF(strstr(line, "[anon:my arena]"), "%s", line);
	test_map(at + 2 * 4096, line, sizeof(line));
	CHECKF(!strstr(line, "arena"), "%s", line);
	CHECK_EQUAL(at[5], 1);
	test_pass();
}
