/* SPDX-License-Identifier: Apache-2.0 */
/* A task that may not read the time stamp counter. */
#include "harness.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>

static sigjmp_buf out;

static void fault(int sig)
{
	siglongjmp(out, 1);
}

int main(void)
{
	int value = 0;

	test_init();
	signal(SIGSEGV, fault);
	CHECK(!prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
	/* The vDSO would read it: real system calls only from here, and sleeping is one. */
	test_wait();
	if (test_break(1))
		prctl(PR_SET_TSC, PR_TSC_ENABLE);
	CHECK(!prctl(PR_GET_TSC, &value));
	CHECK_EQUAL(value, PR_TSC_SIGSEGV);
	if (!sigsetjmp(out, 1)) {
		asm volatile("rdtsc" : : : "eax", "edx");
		test_fail(__FILE__, __LINE__, "rdtsc is allowed");
	}
	test_pass();
}
