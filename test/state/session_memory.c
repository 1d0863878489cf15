/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that fork left shared, between processes that a restart makes in another
 * order than they were made: a parent that began a session after the fork, orphans of a session
 * whose leader lives elsewhere in the tree, or has gone.
 */
#include "harness.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (64 * 4096UL)

static char *common, *late;
static volatile pid_t *pids;
static pid_t subreaper;

enum { EARLY, LEADER, ORPHAN, SECOND, LOST, LOST_TOO, READY };

static void check_memory(int own)
{
	CHECK_FILLED(common, SIZE, 1);
	CHECK_FILLED(late, SIZE, own);
}

static int stay(void *arg)
{
	int who = (int)(intptr_t)arg;
	pid_t sid = getsid(0);

	pids[who] = (pid_t)syscall(SYS_getpid);
	test_hold();
	CHECK_EQUAL(getsid(0), sid);
	check_memory(who == EARLY ? 2 : who >= LOST ? 6 : 4);
	if (who != EARLY)
		CHECK_EQUAL(getppid(), subreaper);
	return 30 + who;
}

/* Forks one that is adopted by the subreaper, and ends. */
static int leave_one(void *arg)
{
	test_fork(stay, arg);
	return 0;
}

static int leader(void *arg)
{
	CHECK(setsid() > 0);
	test_fill(late, SIZE, 4);
	test_reap(test_fork(leave_one, (void *)(intptr_t)ORPHAN), 0);
	test_reap(test_fork(leave_one, (void *)(intptr_t)SECOND), 0);
	/* pages that the orphans do not have */
	test_fill(late, SIZE, 7);
	pids[LEADER] = 1;
	test_hold();
	check_memory(7);
	return 21;
}

/* The leader of a session that is not the child of the subreaper. */
static int between(void *arg)
{
	pid_t pid;

	pid = test_fork(leader, NULL);
	while (!pids[LEADER])
		usleep(1000);
	test_fill(late, SIZE, 8);
	test_hold();
	check_memory(8);
	test_reap(pid, 21);
	return 22;
}

static int dead_leader(void *arg)
{
	CHECK(setsid() > 0);
	test_fill(late, SIZE, 6);
	test_fork(stay, (void *)(intptr_t)LOST);
	test_fork(stay, (void *)(intptr_t)LOST_TOO);
	return 0;
}

static void wait_for(int who)
{
	while (!pids[who])
		usleep(1000);
}

static char *map(void)
{
	char *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

static int body(void *arg)
{
	pid_t early, middle;

	subreaper = (pid_t)syscall(SYS_getpid);
	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	test_fill(common, SIZE, 1);
	test_fill(late, SIZE, 2);
	early = test_fork(stay, (void *)(intptr_t)EARLY);
	wait_for(EARLY);
	test_fill(late, SIZE, 3);
	CHECK(setsid() > 0);
	middle = test_fork(between, NULL);
	wait_for(ORPHAN);
	wait_for(SECOND);
	wait_for(LEADER);
	test_reap(test_fork(dead_leader, NULL), 0);
	wait_for(LOST);
	wait_for(LOST_TOO);
	pids[READY] = 1;
	test_hold();
	check_memory(3);
	test_reap(early, 30 + EARLY);
	test_reap(middle, 22);
	test_reap(pids[ORPHAN], 30 + ORPHAN);
	test_reap(pids[SECOND], 30 + SECOND);
	test_reap(pids[LOST], 30 + LOST);
	test_reap(pids[LOST_TOO], 30 + LOST_TOO);
	return 9;
}

int main(void)
{
	pid_t pid;

	test_init();
	pids = test_shared(4096);
	common = map();
	late = map();
	pid = test_fork(body, NULL);
	wait_for(READY);

	if (test_break(1))
		pids[ORPHAN] = 1;
	test_wait();
	test_reap(pid, 9);
	test_pass();
}
