/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions and process groups whose leaders have gone. */
#include "harness.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
	volatile pid_t session, group, member[3];
	volatile int ready;
} * shared;

static int member(void *arg)
{
	int i = (int)(intptr_t)arg;

	shared->member[i] = syscall(SYS_getpid);
	/* Until the leader, our parent, has gone. */
	while (getppid() == shared->session || getppid() == shared->group)
		usleep(1000);
	__sync_fetch_and_add(&shared->ready, 1);
	test_hold();
	if (test_break(1) && i == 0)
		setsid();
	CHECK_EQUAL(getsid(0), i < 2 ? shared->session : getsid(getppid()));
	CHECK_EQUAL(getpgid(0), i == 0	 ? shared->session
				: i == 1 ? shared->member[1]
					 : shared->group);
	return 30 + i;
}

static int session_leader(void *arg)
{
	CHECK(setsid() >= 0);
	shared->session = syscall(SYS_getpid);
	test_fork(member, (void *)0);
	setpgid(test_fork(member, (void *)1), 0);
	return 1;
}

static int group_leader(void *arg)
{
	CHECK(!setpgid(0, 0));
	shared->group = syscall(SYS_getpid);
	test_fork(member, (void *)2);
	return 2;
}

int main(void)
{
	test_init();
	shared = test_shared(4096);
	/* The orphans come to us, not to an init outside the tree. */
	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	test_reap(test_fork(session_leader, NULL), 1);
	test_reap(test_fork(group_leader, NULL), 2);
	while (shared->ready < 3)
		usleep(1000);

	test_wait();
	for (int i = 0; i < 3; i++)
		test_reap(shared->member[i], 30 + i);
	/* The number of the dead leader is free, or at least not a process of ours. */
	CHECK(waitpid(shared->session, NULL, 0) < 0 && errno == ECHILD);
	CHECK(kill(shared->session, 0) < 0 && errno == ESRCH);
	test_pass();
}
