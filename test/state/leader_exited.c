/* SPDX-License-Identifier: Apache-2.0 */
/* The leader thread has ended; the others go on. */
/* may-refuse: kernel-too-old */
#include "harness.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile pid_t *shared;

static void *worker(void *arg)
{
	pid_t tid = syscall(SYS_gettid);

	test_until_state(syscall(SYS_getpid), 'Z');
	shared[(intptr_t)arg] = tid;
	test_hold();
	if (test_break(1))
		_exit(3);
	CHECK_EQUAL(syscall(SYS_gettid), tid);
	CHECK(syscall(SYS_getpid) != tid);
	CHECK_EQUAL(test_state(syscall(SYS_getpid)), 'Z');
	/* The last one ends the process. */
	if (__sync_add_and_fetch(&shared[8], 1) == 3)
		_exit(66);
	pause();
	return NULL;
}

static int process(void *arg)
{
	pthread_t thread;

	for (intptr_t i = 0; i < 3; i++)
		CHECK(!pthread_create(&thread, NULL, worker, (void *)i));
	syscall(SYS_exit, 5);
	return 0;
}

int main(void)
{
	siginfo_t info = {0};
	pid_t pid;

	test_init();
	shared = test_shared(4096);
	pid = test_fork(process, NULL);
	while (!shared[0] || !shared[1] || !shared[2])
		usleep(1000);
	test_wait();
	CHECK(!waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT));
	CHECKF(!info.si_pid || shared[8], "a dead leader may be reaped before its threads");
	test_reap(pid, 66);
	test_pass();
}
