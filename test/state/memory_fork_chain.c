/* SPDX-License-Identifier: Apache-2.0 */
/* Memory inherited over generations: each changed some, unmapped some, moved some. */
#include "harness.h"

#include <sys/mman.h>
#include <unistd.h>

#define PAGE	    4096UL
#define PAGES	    64
#define GENERATIONS 6

static char *at, *moved;
static volatile int *count;

static int generation(void *arg)
{
	int g = (int)(intptr_t)arg;
	pid_t pid = 0;

	if (g == 3) {
		char *to = mremap(moved, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
				  moved + (1UL << 30));

		CHECK(to == moved + (1UL << 30));
		moved = to;
	}
	if (g == 4)
		CHECK(!munmap(at + 40 * PAGE, 8 * PAGE));
	if (g)
		test_fill(at + g * PAGE, PAGE, 1000 + g);
	if (g == 5)
		CHECK(!madvise(at + 2 * PAGE, PAGE, MADV_DONTNEED));
	if (g + 1 < GENERATIONS)
		pid = test_fork(generation, (void *)(intptr_t)(g + 1));
	/* After the fork: the parent's own. */
	test_fill(at + (20 + g) * PAGE, PAGE, 2000 + g);
	__sync_fetch_and_add(count, 1);
	test_hold();
	for (int page = 0; page < PAGES; page++) {
		if (g >= 4 && page >= 40 && page < 48)
			continue;
		if (g == 5 && page == 2)
			CHECK_EQUAL(at[page * PAGE], 0);
		else if (page && page <= g)
			CHECK_FILLED(at + page * PAGE, PAGE, 1000 + page);
		else if (page == 20 + g)
			CHECK_FILLED(at + page * PAGE, PAGE, 2000 + g);
		else
			CHECK_FILLED(at + page * PAGE, PAGE, page);
	}
	CHECK_FILLED(moved, 8 * PAGE, 500);
	if (g >= 4)
		CHECK(munmap(at + 40 * PAGE, PAGE) == 0);
	if (pid)
		test_reap(pid, 7);
	return 7 - test_break(1);
}

int main(void)
{
	pid_t pid;

	test_init();
	count = test_shared(PAGE);
	at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	moved = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int page = 0; page < PAGES; page++)
		test_fill(at + page * PAGE, PAGE, page);
	test_fill(moved, 8 * PAGE, 500);
	pid = test_fork(generation, (void *)0);
	while (*count < GENERATIONS)
		usleep(1000);
	test_wait();
	test_reap(pid, 7);
	test_pass();
}
