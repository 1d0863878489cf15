/* SPDX-License-Identifier: Apache-2.0 */
/* A parent that waits in vfork for a child that sleeps before it ends.
 *
 * may-refuse: task-vfork
 */
#include "harness.h"

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int *shared;

static int parent(void *arg)
{
	pid_t pid = vfork();

	CHECK(pid >= 0);
	if (pid == 0) {
		shared[0] = syscall(SYS_getpid);
		test_hold();
		shared[2] = 1;
		_exit(9);
	}
	CHECK_EQUAL(shared[2], 1 + !!test_break(1));
	CHECK_EQUAL(pid, shared[0]);
	test_reap(pid, 9);
	return 6;
}

int main(void)
{
	pid_t pid;

	test_init();
	shared = test_shared(4096);
	pid = test_fork(parent, NULL);
	while (!shared[0])
		usleep(1000);
	test_wait();
	test_reap(pid, 6);
	test_pass();
}
