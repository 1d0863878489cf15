/* SPDX-License-Identifier: Apache-2.0 */
/* Anonymous private memory: contents, sparse mappings, what was never touched, all protections. */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE   4096UL
#define SPARSE (1UL << 30)

static const size_t sizes[] = {1, 2, 3, 15, 16, 17, 63, 511, 512, 513, 2000};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static char *map(size_t size, int flags)
{
	char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1,
			0);

	CHECK(at != MAP_FAILED);
	return at;
}

int main(void)
{
	char *at[SIZES], *sparse, *none, *exec, *zeroes;
	unsigned long touched = 0;

	test_init();
	for (size_t i = 0; i < SIZES; i++) {
		at[i] = map(sizes[i] * PAGE, 0);
		test_fill(at[i], sizes[i] * PAGE, i);
	}
	/* One page in 7919, in 1 GiB that is not reserved. */
	sparse = map(SPARSE, MAP_NORESERVE);
	madvise(sparse, SPARSE, MADV_NOHUGEPAGE);
	for (size_t page = 3; page < SPARSE / PAGE; page += 7919)
		test_fill(sparse + page * PAGE, PAGE, page);
	none = map(PAGE * 5, 0);
	test_fill(none, PAGE * 5, 77);
	CHECK(!mprotect(none, PAGE * 5, PROT_NONE));
	exec = map(PAGE * 2, 0);
	test_fill(exec, PAGE * 2, 78);
	CHECK(!mprotect(exec, PAGE * 2, PROT_READ | PROT_EXEC));
	/* Written with zeroes, and zeroes after something else. */
	zeroes = map(PAGE * 3, 0);
	memset(zeroes, 1, PAGE);
	memset(zeroes, 0, PAGE * 2);

	test_wait();
	if (test_break(1))
		at[5][12345] ^= 1;
	if (test_break(2))
		(void)!*(volatile char *)(sparse + 4 * PAGE);
	if (test_break(3))
		mprotect(exec, PAGE, PROT_READ | PROT_WRITE), exec[7] ^= 1;

	for (size_t i = 0; i < SIZES; i++)
		CHECK_FILLED(at[i], sizes[i] * PAGE, i);
	for (size_t page = 0; page < SPARSE / PAGE; page++)
		if (page % 7919 < 10)
			touched += test_populated(sparse + page * PAGE);
	CHECK_EQUAL(touched, SPARSE / PAGE / 7919 + 1);
	for (size_t page = 3; page < SPARSE / PAGE; page += 7919)
		CHECK_FILLED(sparse + page * PAGE, PAGE, page);
	CHECK(!mprotect(none, PAGE * 5, PROT_READ));
	CHECK_FILLED(none, PAGE * 5, 77);
	CHECK_FILLED(exec, PAGE * 2, 78);
	for (size_t i = 0; i < PAGE * 3; i++)
		CHECK_EQUAL(zeroes[i], 0);
	/* And it is memory like any other. */
	for (size_t i = 0; i < SIZES; i++)
		CHECK(!munmap(at[i], sizes[i] * PAGE));
	test_pass();
}
