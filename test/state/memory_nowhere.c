/* SPDX-License-Identifier: Apache-2.0 */
/* A page of shared memory that is mapped nowhere for the moment, and comes back (remap_file_pages).
 *
 * may-refuse: permission
 */
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
	for (size_t i = 0; i < PAGES - 1; i++)
		CHECK(!remap_file_pages(at + i * PAGE, PAGE, 0, i + 1, 0));
	test_wait();
	CHECK(!remap_file_pages(at, PAGE, 0, 0, 0));
	if (test_break(1))
		at[0]++;
	CHECK_EQUAL(at[0], 'a');
	for (size_t i = 1; i < PAGES - 1; i++)
		CHECK_EQUAL(at[i * PAGE], (char)('b' + i));
	test_pass();
}
