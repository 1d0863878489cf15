/* SPDX-License-Identifier: Apache-2.0 */
/* A chain of 40 processes and a row of 80. */
#include "harness.h"

#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH 40
#define WIDTH 80

static volatile int *count;

static int leaf(void *arg)
{
	pid_t parent = getppid();

	__sync_fetch_and_add(count, 1);
	test_hold();
	CHECK_EQUAL(getppid(), parent);
	return (int)(intptr_t)arg;
}

static int link_of_chain(void *arg)
{
	intptr_t depth = (intptr_t)arg;
	pid_t parent = getppid(), pid = 0;

	if (depth)
		pid = test_fork(link_of_chain, (void *)(depth - 1));
	__sync_fetch_and_add(count, 1);
	test_hold();
	CHECK_EQUAL(getppid(), parent);
	if (pid)
		test_reap(pid, (int)depth - 1);
	return (int)depth;
}

int main(void)
{
	pid_t pids[WIDTH], chain;

	test_init();
	count = test_shared(4096);
	chain = test_fork(link_of_chain, (void *)(DEPTH - 1));
	for (int i = 0; i < WIDTH; i++)
		pids[i] = test_fork(leaf, (void *)(intptr_t)i);
	while (*count < DEPTH + WIDTH)
		usleep(1000);
	test_wait();
	test_reap(chain, DEPTH - 1 + !!test_break(1));
	for (int i = 0; i < WIDTH; i++)
		test_reap(pids[i], i);
	test_pass();
}
