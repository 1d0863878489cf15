/* SPDX-License-Identifier: Apache-2.0 */
/* The signal that a task asked for at its parent's death. */
#include "harness.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int *shared;

static void handler(int sig)
{
	shared[2] = sig;
}

static int grandchild(void *arg)
{
	int sig = 0;

	signal(SIGUSR2, handler);
	CHECK(!prctl(PR_SET_PDEATHSIG, SIGUSR2));
	shared[0] = syscall(SYS_getpid);
	test_hold();
	CHECK_EQUAL(shared[2], 0);
	CHECK(!prctl(PR_GET_PDEATHSIG, &sig));
	CHECK_EQUAL(sig, SIGUSR2);
	if (test_break(1))
		prctl(PR_SET_PDEATHSIG, 0);
	shared[1] = 1;
	for (int i = 0; i < 3000 && !shared[2]; i++)
		usleep(1000);
	return shared[2];
}

static int child(void *arg)
{
	test_fork(grandchild, NULL);
	test_hold();
	while (!shared[1])
		usleep(1000);
	return 2;
}

int main(void)
{
	pid_t pid;

	test_init();
	shared = test_shared(4096);
	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid = test_fork(child, NULL);
	while (!shared[0])
		usleep(1000);
	test_wait();
	test_reap(pid, 2);
	test_reap(shared[0], SIGUSR2);
	test_pass();
}
