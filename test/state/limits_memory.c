/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks whose limits of address space and locked memory are reached. */
#include "harness.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGE 4096UL

static volatile int *shared;

static void limit_to(int which, size_t size)
{
	struct rlimit limit;

	CHECK(!getrlimit(which, &limit));
	limit.rlim_cur = size;
	CHECK(!setrlimit(which, &limit));
}

static size_t page_field(int field)
{
	char text[256], *at = text;
	int fd_free = test_read("/proc/self/statm", text, sizeof(text));

	CHECK(fd_free);
	for (int i = 0; i < field; i++)
		strtoul(at, &at, 10);
	return strtoul(at, NULL, 10) * PAGE;
}

static int full_address_space(void *arg)
{
	size_t limit = page_field(0) + 10 * PAGE;

	limit_to(RLIMIT_AS, limit);
	while (mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
	       MAP_FAILED)
		;
	CHECK(errno == ENOMEM);
	shared[0] = 1;
	test_hold();
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
	CHECK_EQUAL(page_field(0), limit);
	return 4;
}

static int full_data(void *arg)
{
	limit_to(RLIMIT_DATA, 1 << 20);
	while (mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
	       MAP_FAILED)
		;
	shared[1] = 1;
	test_hold();
	CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
	      MAP_FAILED);
	return 5;
}

static int full_locked(void *arg)
{
	char *at =
		mmap(NULL, 32 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	CHECK(!mlock(at, 16 * PAGE));
	limit_to(RLIMIT_MEMLOCK, getuid() ? 16 * PAGE : 4 * PAGE);
	test_fill(at, 16 * PAGE, 1);
	shared[2] = 1;
	test_hold();
	if (test_break(1))
		munlock(at, PAGE);
	CHECK_FILLED(at, 16 * PAGE, 1);
	CHECK(test_vm_flag(at, "lo") && test_vm_flag(at + 15 * PAGE, "lo"));
	if (getuid())
		CHECK(mlock(at + 16 * PAGE, PAGE) < 0);
	return 6;
}

int main(void)
{
	pid_t pids[3];

	test_init();
	shared = test_shared(4096);
	pids[0] = test_fork(full_address_space, NULL);
	pids[1] = test_fork(full_data, NULL);
	pids[2] = test_fork(full_locked, NULL);
	while (!shared[0] || !shared[1] || !shared[2])
		usleep(1000);
	test_wait();
	for (int i = 0; i < 3; i++)
		test_reap(pids[i], 4 + i);
	test_pass();
}
