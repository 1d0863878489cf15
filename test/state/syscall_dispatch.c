/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls that the program wants to handle itself: dispatch by a selector byte.
 *
 * may-refuse: task-state
 */
#include "harness.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
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

/* Asks a child that stands still; before 6.4 nobody but root learns it. */
static bool can_be_asked(void)
{
	struct {
		unsigned long mode, selector, offset, len;
	} config;
	pid_t pid = fork();
	bool can;

	CHECK(pid >= 0);
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(0);
	}
	CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
	can = ptrace(0x4211 /* PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG */, pid, sizeof(config),
		     &config) >= 0;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return can;
}

int main(void)
{
	struct sigaction action = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};
	long result;

	test_init();
	sigaction(SIGSYS, &action, NULL);
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &selector))
		test_skip("no dispatch of system calls: %s", strerror(errno));
	if (test_mode_is("user") && !can_be_asked())
		test_skip("this kernel does not tell of the dispatch of system calls");
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
