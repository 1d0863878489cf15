/* SPDX-License-Identifier: Apache-2.0 */
/* A tree of processes: real parents, process groups, sessions. */
#include "harness.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILDREN      3
#define GRANDCHILDREN 2
#define ALL	      (1 + CHILDREN * (1 + GRANDCHILDREN))

struct entry {
	pid_t pid, ppid, pgid, sid;
	volatile int settled, hit;
};

static struct entry *entries;

static void hit(int sig)
{
	for (int i = 0; i < ALL; i++)
		if (entries[i].pid == syscall(SYS_getpid))
			entries[i].hit++;
}

static void settle(int i)
{
	entries[i].pid = syscall(SYS_getpid);
	entries[i].ppid = i ? syscall(SYS_getppid) : 0;
	entries[i].pgid = getpgid(0);
	entries[i].sid = getsid(0);
	entries[i].settled = 1;
}

static void verify(int i)
{
	struct entry *e = &entries[i];

	if (test_break(1) && i == 5)
		setpgid(0, 0);
	CHECK_EQUAL(syscall(SYS_getpid), e->pid);
	if (i)
		CHECK_EQUAL(syscall(SYS_getppid), e->ppid);
	CHECK_EQUAL(getpgid(0), e->pgid);
	CHECK_EQUAL(getsid(0), e->sid);
	CHECK_EQUAL(test_stat(e->pid, 5), e->pgid);
	CHECK_EQUAL(test_stat(e->pid, 6), e->sid);
	CHECK_EQUAL(test_stat(e->pid, 38), SIGCHLD);
}

static int grandchild(void *arg)
{
	int i = (int)(intptr_t)arg;

	if (i % 4 == 2)
		setpgid(0, 0);
	if (i % 4 == 3)
		setsid();
	settle(i);
	test_hold();
	verify(i);
	return 20 + i;
}

static int child(void *arg)
{
	int i = (int)(intptr_t)arg, first = 1 + CHILDREN + (i - 1) * GRANDCHILDREN;
	pid_t pids[GRANDCHILDREN];

	if (i == 1)
		setsid();
	if (i == 2)
		setpgid(0, 0);
	for (int j = 0; j < GRANDCHILDREN; j++)
		pids[j] = test_fork(grandchild, (void *)(intptr_t)(first + j));
	settle(i);
	test_hold();
	verify(i);
	for (int j = 0; j < GRANDCHILDREN; j++)
		test_reap(pids[j], 20 + first + j);
	return 10 + i;
}

int main(void)
{
	pid_t pids[CHILDREN], pgid;
	int hits = 0, expected = 0;

	test_init();
	entries = test_shared(4096);
	signal(SIGUSR1, hit);
	for (int i = 0; i < CHILDREN; i++)
		pids[i] = test_fork(child, (void *)(intptr_t)(1 + i));
	settle(0);
	for (int i = 0; i < ALL; i++)
		while (!entries[i].settled)
			usleep(1000);

	test_wait();
	verify(0);
	for (int i = 0; i < CHILDREN; i++)
		test_reap(pids[i], 11 + i);
	/* A signal to a group that now has no other member. */
	pgid = getpgid(0);
	if (pgid == entries[0].pid) {
		CHECK(!kill(-pgid, SIGUSR1));
		for (int i = 0; i < ALL; i++) {
			hits += entries[i].hit;
			expected += i == 0;
		}
		CHECK_EQUAL(hits, expected);
	}
	CHECK_EQUAL(waitpid(-1, NULL, 0), -1);
	CHECK_EQUAL(errno, ECHILD);
	test_pass();
}
