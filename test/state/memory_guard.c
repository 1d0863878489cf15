/* SPDX-License-Identifier: Apache-2.0 */
/* Guard pages: the light ones of madvise, and those without access. */
#include "harness.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE	      4096UL
#define GUARD_INSTALL 102
#define GUARD_REMOVE  103

static sigjmp_buf out;

static void fault(int sig)
{
	siglongjmp(out, sig);
}

static bool faults(volatile char *at)
{
	if (sigsetjmp(out, 1))
		return true;
	(void)!*at;
	return false;
}

int main(void)
{
	char *at, *none;

	test_init();
	signal(SIGSEGV, fault);
	at = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	none = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(at != MAP_FAILED && none != MAP_FAILED);
	for (int i = 0; i < 64; i += 2)
		test_fill(at + i * PAGE, PAGE, i);
	if (madvise(at + 10 * PAGE, 3 * PAGE, GUARD_INSTALL))
		test_skip("no guard regions in this kernel");
	CHECK(!madvise(at + 63 * PAGE, PAGE, GUARD_INSTALL));
	CHECK(!madvise(at, PAGE, GUARD_INSTALL));

	test_wait();
	if (test_break(1))
		madvise(at + 63 * PAGE, PAGE, GUARD_REMOVE);
	if (test_break(2))
		madvise(at + 62 * PAGE, PAGE, GUARD_INSTALL);
	for (int i = 0; i < 64; i++) {
		bool guard = i == 0 || i == 63 || (i >= 10 && i < 13);

		CHECKF(faults(at + i * PAGE) == guard, "page %d: guard is %s", i,
		       guard ? "lost" : "new");
		if (!guard && i % 2 == 0)
			CHECK_FILLED(at + i * PAGE, PAGE, i);
	}
	CHECK(!madvise(at, PAGE, GUARD_REMOVE));
	CHECK_EQUAL(at[0], 0);
	CHECK(faults(none) && faults(none + 3 * PAGE));
	test_pass();
}
