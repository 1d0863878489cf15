/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transparent huge pages: the advice and the contents; memory is huge again where it was.
 * not-in: lazy: it comes in small pages, which the kernel puts together later
 */
#include "harness.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define HUGE (2UL << 20)

int main(void)
{
	char *room, *at, setting[64];
	long huge;

	test_init();
	test_read("/sys/kernel/mm/transparent_hugepage/enabled", setting, sizeof(setting));
	if (strstr(setting, "[never]"))
		test_skip("no transparent huge pages here");
	room = mmap(NULL, 5 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	at = (char *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1));
	CHECK(!madvise(at, 4 * HUGE, MADV_HUGEPAGE));
	test_fill(at, 3 * HUGE, 1);
	/* The last one stays untouched; half of the second is given back. */
	CHECK(!madvise(at + HUGE, HUGE / 2, MADV_DONTNEED));
	huge = test_smaps(at, "AnonHugePages");

	test_wait();
	if (test_break(1))
		madvise(at, 4 * HUGE, MADV_NOHUGEPAGE);
	CHECK(test_vm_flag(at, "hg"));
	CHECK_FILLED(at, HUGE, 1);
	for (size_t i = 0; i < HUGE / 2; i += 64)
		CHECK_EQUAL(at[HUGE + i], 0);
	CHECK(!test_populated(at + 3 * HUGE + 4096));
	/* As far as there are such pages to be had. */
	if (huge >= 4096)
		CHECKF(test_smaps(at, "AnonHugePages") > 0, "no huge page is left of %ld KiB",
		       huge);
	test_pass();
}
