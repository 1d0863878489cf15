/* SPDX-License-Identifier: Apache-2.0 */
/* A task that has blocked every signal, even those that libc keeps for itself. */
#include "harness.h"

#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
	uint64_t all = ~0ULL, is = 0, expected;

	test_init();
	CHECK(!syscall(SYS_rt_sigprocmask, 2, &all, NULL, 8));
	CHECK(!syscall(SYS_rt_sigprocmask, 2, NULL, &expected, 8));
	syscall(SYS_tgkill, getpid(), getpid(), 33);
	test_wait();
	if (test_break(1))
		expected ^= 4;
	CHECK(!syscall(SYS_rt_sigprocmask, 2, NULL, &is, 8));
	CHECK_EQUAL(is, expected);
	CHECK(!syscall(SYS_rt_sigpending, &is, 8));
	CHECK_EQUAL(is, 1ULL << 32);
	test_pass();
}
