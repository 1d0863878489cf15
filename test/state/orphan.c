/* SPDX-License-Identifier: Apache-2.0 */
/* Orphans adopted by a subreaper, and the subreaper flag itself. */
#include "harness.h"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile pid_t *orphans;

static int orphan(void *arg)
{
	int i = (int)(intptr_t)arg;

	orphans[i] = syscall(SYS_getpid);
	test_hold();
	CHECK_EQUAL(getppid(), orphans[9]);
	return 40 + i;
}

static int parent(void *arg)
{
	int i = (int)(intptr_t)arg;

	test_fork(orphan, arg);
	test_fork(orphan, (void *)(intptr_t)(i + 1));
	return 3;
}

static int late_orphan(void *arg)
{
	while (getppid() != orphans[9])
		usleep(1000);
	return 55;
}

static int late_parent(void *arg)
{
	orphans[8] = test_fork(late_orphan, NULL);
	return 4;
}

/* A subreaper of its own that has adopted one itself. */
static int second(void *arg)
{
	volatile pid_t *mine = orphans;
	int value = 0;

	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	orphans[9] = syscall(SYS_getpid);
	test_reap(test_fork(parent, (void *)0), 3);
	while (!mine[0] || !mine[1])
		usleep(1000);
	orphans[7] = 1;
	test_hold();
	if (test_break(1))
		prctl(PR_SET_CHILD_SUBREAPER, 0);
	CHECK(!prctl(PR_GET_CHILD_SUBREAPER, &value));
	CHECK_EQUAL(value, 1);
	test_reap(mine[1], 41);
	test_reap(mine[0], 40);
	test_reap(test_fork(late_parent, NULL), 4);
	test_reap(mine[8], 55);
	return 9;
}

int main(void)
{
	int value = -1;
	pid_t pid;

	test_init();
	orphans = test_shared(4096);
	pid = test_fork(second, NULL);
	while (!orphans[7])
		usleep(1000);
	test_wait();
	CHECK(!prctl(PR_GET_CHILD_SUBREAPER, &value));
	CHECK_EQUAL(value, 0);
	test_reap(pid, 9);
	test_pass();
}
