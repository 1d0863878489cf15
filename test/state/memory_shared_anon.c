/* SPDX-License-Identifier: Apache-2.0 */
/* Anonymous memory shared between exactly those that shared it. */
#include "harness.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE  4096UL
#define PAGES 600

static char *first, *second, *zero, *half;

static int child(void *arg)
{
	int i = (int)(intptr_t)arg;
	volatile char *mark = first;

	if (i == 1) /* not shared by this one any more */
		CHECK(!munmap(second, PAGES * PAGE));
	if (i == 2) { /* elsewhere, in part */
		second =
			mremap(second + 5 * PAGE, 3 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			       second + 2 * PAGES * PAGE + (64UL << 20));
		CHECK(second != MAP_FAILED);
	}
	mark[100 + i] = 1;
	test_hold();
	if (i == 0) {
		CHECK_FILLED_FROM(second, PAGE, PAGES * PAGE, 2);
		second[5 * PAGE] = 'n';
	}
	if (i == 1) {
		unsigned char residence;

		CHECK(mincore(second, PAGE, &residence) < 0 && errno == ENOMEM);
	}
	if (i == 2) {
		while (*(volatile char *)second != 'n')
			usleep(1000);
	}
	mark[200 + i] = 1;
	return 11 + i;
}

int main(void)
{
	pid_t pids[3];
	int fd;

	test_init();
	first = test_shared(PAGES * PAGE);
	second = test_shared(PAGES * PAGE);
	test_fill(second, PAGES * PAGE, 2);
	fd = open("/dev/zero", O_RDWR);
	zero = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(zero != MAP_FAILED);
	close(fd);
	test_fill(zero, 4 * PAGE, 3);
	half = test_shared(PAGES * PAGE);
	test_fill(half + 300 * PAGE, 10 * PAGE, 4);
	/* A hole in the middle, the rest remains one object. */
	CHECK(!munmap(half + 100 * PAGE, 10 * PAGE));
	CHECK(!mprotect(half + 200 * PAGE, PAGE, PROT_NONE));
	for (int i = 0; i < 3; i++)
		pids[i] = test_fork(child, (void *)(intptr_t)i);
	for (int i = 0; i < 3; i++)
		while (!((volatile char *)first)[100 + i])
			usleep(1000);
	test_wait();
	if (test_break(1))
		CHECK(mmap(second, PAGES * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0) == second);
	for (int i = 0; i < 3; i++) {
		test_reap(pids[i], 11 + i);
		CHECK_EQUAL(first[200 + i], 1);
	}
	CHECK_EQUAL(second[5 * PAGE], 'n');
	CHECK_FILLED(zero, 4 * PAGE, 3);
	CHECK_FILLED(half + 300 * PAGE, 10 * PAGE, 4);
	CHECK(!test_populated(half + 50 * PAGE));
	/* None was filled that was a hole. */
	CHECK_EQUAL(test_smaps(half + 300 * PAGE, "Rss"), 40);
	test_pass();
}
