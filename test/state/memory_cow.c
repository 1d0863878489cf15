/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that fork left shared stay so: pre-forked workers use no more memory than before.
 *
 * timeout: 60
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define WORKERS 20
#define SIZE	(64UL << 20)
#define PAGE	4096UL

static char *at;
static volatile int *count;

/* In KiB. */
static long pss(pid_t pid)
{
	char path[64], value[64];

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	test_line(path, "Pss", value, sizeof(value));
	return atol(value);
}

static int worker(void *arg)
{
	size_t i = (size_t)(intptr_t)arg;

	/* A little of its own. */
	for (size_t page = i; page < SIZE / PAGE; page += 1000)
		test_fill(at + page * PAGE, PAGE, 5000 + i);
	__sync_fetch_and_add(count, 1);
	test_hold();
	while (!count[1])
		usleep(2000);
	for (size_t page = 0; page < SIZE / PAGE; page++) {
		if (page % 1000 == i)
			CHECK_FILLED(at + page * PAGE, PAGE, 5000 + i);
		else if (page % 29 == 0)
			CHECK_EQUAL(*(long *)(at + page * PAGE), (long)page);
	}
	return 21;
}

int main(void)
{
	long before, after;
	pid_t pids[WORKERS];

	test_init();
	count = test_shared(PAGE);
	at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(at != MAP_FAILED);
	madvise(at, SIZE, MADV_NOHUGEPAGE);
	for (size_t page = 0; page < SIZE / PAGE; page++)
		memset(at + page * PAGE, (int)page, PAGE), *(long *)(at + page * PAGE) = page;
	for (int i = 0; i < WORKERS; i++)
		pids[i] = test_fork(worker, (void *)(intptr_t)i);
	while (*count < WORKERS)
		usleep(1000);
	before = pss(getpid());
	for (int i = 0; i < WORKERS; i++)
		before += pss(pids[i]);

	test_wait();
	if (test_break(1))
		for (size_t page = 0; page < SIZE / PAGE; page++)
			at[page * PAGE + 50]++;
	after = pss(getpid());
	for (int i = 0; i < WORKERS; i++)
		after += pss(pids[i]);
	/* Beside the original the copy shares only with itself: what files hold counts for both. */
	CHECKF(after <= before + before / 10, "%ld KiB in all, %ld before", after, before);
	count[1] = 1;
	for (int i = 0; i < WORKERS; i++)
		test_reap(pids[i], 21);
	test_pass();
}
