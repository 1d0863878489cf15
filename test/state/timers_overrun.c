/* SPDX-License-Identifier: Apache-2.0 */
/* How often a POSIX timer has fired more often than its signal was taken. */
#include "harness.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

int main(void)
{
	struct itimerspec value = {{0, 1000 * 1000}, {0, 1000 * 1000}}, none = {{0, 0}, {0, 0}};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	struct timespec zero = {0, 0}, soon = {1, 0};
	int taken, id;
	siginfo_t info;
	sigset_t set;

	test_init();
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	CHECK(!syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
	CHECK(!syscall(SYS_timer_settime, id, 0, &value, NULL));
	test_sleep(0.05);
	CHECK_EQUAL(sigtimedwait(&set, &info, &zero), SIGRTMIN);
	taken = syscall(SYS_timer_getoverrun, id);
	CHECK(taken > 10 && info.si_overrun == taken);
	/* The next one is pending already. */
	test_sleep(0.03);

	test_wait();
	if (test_break(1))
		taken++;
	CHECK_EQUAL(syscall(SYS_timer_getoverrun, id), taken);
	CHECK_EQUAL(sigtimedwait(&set, &info, &soon), SIGRTMIN);
	CHECK_EQUAL(info.si_code, SI_TIMER);
	CHECK_EQUAL(info.si_timerid, id);
	/* How often it had fired since is not told by the kernel before the signal is taken. */
	CHECK_EQUAL(syscall(SYS_timer_getoverrun, id), info.si_overrun);
	CHECK(!syscall(SYS_timer_settime, id, 0, &none, NULL));
	test_pass();
}
