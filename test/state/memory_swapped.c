/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is in swap: private, shared with a child by fork, and shared anonymous. */
#include "harness.h"

#include <sys/mman.h>
#include <unistd.h>

#define SIZE (1UL << 20)

static char *private, *common, *shared;

/* Any part will do: the kernel may keep some pages, such as those of a huge page. */
static int swapped(void *at)
{
	return !madvise(at, SIZE, MADV_PAGEOUT) && test_smaps(at, "Swap") > 0;
}

static int child(void *arg)
{
	test_hold();
	CHECK_FILLED(common, SIZE, 2);
	CHECK_FILLED(shared, SIZE, 3);
	shared[0] = 'c';
	return 5;
}

static char *map(int flags)
{
	char *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	/* Two mappings side by side would be one. */
	CHECK(mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
	return at;
}

int main(void)
{
	pid_t pid;

	test_init();
	private = map(MAP_PRIVATE);
	common = map(MAP_PRIVATE);
	shared = map(MAP_SHARED);
	test_fill(private, SIZE, 1);
	test_fill(common, SIZE, 2);
	test_fill(shared, SIZE, 3);
	if (!swapped(private))
		test_skip("no swap");
	CHECK(swapped(common));
	CHECK(swapped(shared));
	pid = test_fork(child, NULL);

	test_wait();
	if (test_break(1))
	private[SIZE - 1] ^= 1;
	if (test_break(2))
		common[0] ^= 1;
	CHECK_FILLED(private, SIZE, 1);
	CHECK_FILLED(common, SIZE, 2);
	test_reap(pid, 5);
	CHECK_EQUAL(shared[0], 'c');
	test_pass();
}
