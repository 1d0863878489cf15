/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of shared memory in another order (remap_file_pages), all of them. */
#include "harness.h"

#include <sys/mman.h>

#define PAGE  4096UL
#define PAGES 8

int main(void)
{
	char *at =
		mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	test_init();
	CHECK(at != MAP_FAILED);
	for (size_t i = 0; i < PAGES; i++)
		at[i * PAGE] = (char)('a' + i);
	for (size_t i = 0; i < PAGES; i++)
		CHECK(!remap_file_pages(at + i * PAGE, PAGE, 0, PAGES - 1 - i, 0));
	test_wait();
	if (test_break(1))
		at[0]++;
	for (size_t i = 0; i < PAGES; i++)
		CHECK_EQUAL(at[i * PAGE], (char)('a' + PAGES - 1 - i));
	test_pass();
}
