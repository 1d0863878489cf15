/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls that the program wants to handle itself: dispatch by a selector byte.
 *
 * may-refuse: task-state
 */
#include "harness.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

static volatile unsigned char selector;
static volatile int caught;

static void on_sys(int sig, siginfo_t *info, void *context)
{
	selector = 0;
	caught = info->si_syscall;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 4711;
}

int main(void)
{
	struct sigaction action = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};
	long result;

	test_init();
	sigaction(SIGSYS, &action, NULL);
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &selector))
		test_skip("no dispatch of system calls: %s", strerror(errno));
	test_wait();
	if (test_break(1))
		prctl(PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0);
	selector = 1;
	result = syscall(SYS_getpid);
	selector = 0;
	CHECK_EQUAL(caught, SYS_getpid);
	CHECK_EQUAL(result, 4711);
	test_pass();
}
