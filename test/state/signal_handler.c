/* SPDX-License-Identifier: Apache-2.0 */
/* Inside a signal handler on the alternate stack, inside which another came, in a system call. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static char *stack;
#define SIZE 65536

static volatile int left;
static volatile double vector = 1.25;

static bool on_alternate(void)
{
	char *here = __builtin_frame_address(0);

	return here >= stack && here < stack + SIZE;
}

static void check_stack(int flags)
{
	stack_t is;

	CHECK(!sigaltstack(NULL, &is));
	CHECK(is.ss_sp == stack && is.ss_size == SIZE);
	CHECK_EQUAL(is.ss_flags & (SS_ONSTACK | SS_DISABLE), flags);
}

static void inner(int sig, siginfo_t *info, void *context)
{
	CHECK(on_alternate());
	CHECK_EQUAL(info->si_value.sival_int, 77);
	test_wait();
	if (test_break(1))
		left++;
	check_stack(SS_ONSTACK);
	CHECK(on_alternate());
	left++;
}

static void outer(int sig)
{
	union sigval value = {.sival_int = 77};
	sigset_t set;
	double sum = vector;

	CHECK(on_alternate());
	sigqueue(getpid(), SIGRTMIN, value);
	CHECK_EQUAL(left, 1);
	CHECK(on_alternate());
	check_stack(SS_ONSTACK);
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	CHECK(sigismember(&set, SIGUSR1) && sigismember(&set, SIGHUP) &&
	      !sigismember(&set, SIGRTMIN));
	CHECK(sum == 1.25);
	left++;
}

int main(void)
{
	struct sigaction action = {.sa_handler = outer, .sa_flags = SA_ONSTACK};
	stack_t alternate = {.ss_size = SIZE};
	sigset_t set;
	double sum = 3.5;

	test_init();
	stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	alternate.ss_sp = stack;
	CHECK(!sigaltstack(&alternate, NULL));
	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, SIGHUP);
	sigaction(SIGUSR1, &action, NULL);
	action.sa_flags = SA_ONSTACK | SA_SIGINFO;
	action.sa_sigaction = inner;
	sigaction(SIGRTMIN, &action, NULL);
	sum *= vector;
	raise(SIGUSR1);
	/* Both frames have been left by rt_sigreturn. */
	CHECK_EQUAL(left, 2);
	CHECK(sum == 4.375);
	check_stack(0);
	CHECK(!on_alternate());
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	for (int sig = 1; sig < 65; sig++)
		CHECK(sigismember(&set, sig) <= 0);
	test_pass();
}
