/* SPDX-License-Identifier: Apache-2.0 */
/* Three thousand small mappings. */
#include "harness.h"

#include <sys/mman.h>
#include <unistd.h>

#define PAGE  4096UL
#define COUNT 3000UL

int main(void)
{
	char *at;

	test_init();
	at = mmap(NULL, COUNT * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(at != MAP_FAILED);
	for (size_t i = 0; i < COUNT; i++)
		*(size_t *)(at + i * PAGE) = i ^ 0x1234;
	for (size_t i = 0; i < COUNT; i += 2)
		CHECK(!mprotect(at + i * PAGE, PAGE, i % 4 ? PROT_READ : PROT_NONE));
	test_wait();
	if (test_break(1))
		*(size_t *)(at + 1001 * PAGE) = 5;
	CHECK(!mprotect(at, COUNT * PAGE, PROT_READ | PROT_WRITE));
	for (size_t i = 0; i < COUNT; i++)
		CHECK_EQUAL(*(size_t *)(at + i * PAGE), i ^ 0x1234);
	test_pass();
}
