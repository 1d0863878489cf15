/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How often a POSIX timer has fired more often than its signal was taken; of a signal that waits
 * only root can see it.
 */
#include "harness.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PERIOD 1000 /* s; nothing here takes a half of it */

/* Armed so that it has expired 10 times, and is due in half a period. */
static int make_expired(int sig)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = sig};
	struct itimerspec value = {{PERIOD, 0}, {0, 0}};
	int id;

	CHECK(!syscall(SYS_timer_create, CLOCK_REALTIME, &event, &id));
	CHECK(!clock_gettime(CLOCK_REALTIME, &value.it_value));
	value.it_value.tv_sec -= 9 * PERIOD + PERIOD / 2;
	CHECK(!syscall(SYS_timer_settime, id, TIMER_ABSTIME, &value, NULL));
	return id;
}

int main(void)
{
	struct itimerspec value = {{0, 1000 * 1000}, {0, 1000 * 1000}}, none = {{0, 0}, {0, 0}};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	struct timespec zero = {0, 0}, soon = {1, 0};
	/* who may read the memory of the kernel */
	int root = getuid() == 0 && !access("/sys/kernel/btf/vmlinux", R_OK), kept, taken, id,
	    pending_id, taken_id;
	siginfo_t info;
	sigset_t set, pending, other;

	test_init();
	sigemptyset(&set);
	sigemptyset(&pending);
	sigemptyset(&other);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&pending, SIGRTMIN + 1);
	sigaddset(&other, SIGRTMIN + 2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigprocmask(SIG_BLOCK, &pending, NULL);
	sigprocmask(SIG_BLOCK, &other, NULL);
	CHECK(!syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id));
	CHECK(!syscall(SYS_timer_settime, id, 0, &value, NULL));
	test_sleep(0.05);
	CHECK_EQUAL(sigtimedwait(&set, &info, &zero), SIGRTMIN);
	taken = syscall(SYS_timer_getoverrun, id);
	CHECK(taken > 10 && info.si_overrun == taken);
	/* The next one is pending already. */
	test_sleep(0.03);
	taken_id = make_expired(SIGRTMIN + 2);
	CHECK_EQUAL(sigtimedwait(&other, &info, &soon), SIGRTMIN + 2);
	CHECK_EQUAL(info.si_overrun, 9);
	pending_id = make_expired(SIGRTMIN + 1);
	test_sleep(0.01);

	test_wait();
	if (test_break(1))
		taken++;
	if (test_break(2))
		make_expired(SIGRTMIN + 2);
	kept = syscall(SYS_timer_getoverrun, id);
	CHECK_EQUAL(sigtimedwait(&set, &info, &soon), SIGRTMIN);
	CHECK_EQUAL(info.si_code, SI_TIMER);
	CHECK_EQUAL(info.si_timerid, id);
	CHECK_EQUAL(syscall(SYS_timer_getoverrun, id), info.si_overrun);
	/* Where it had fired for long since, that is what can be told. */
	CHECKF(kept == taken || (root && !kept && info.si_overrun >= 29),
	       "%d and %d overruns, not %d", kept, info.si_overrun, taken);
	CHECK_EQUAL(syscall(SYS_timer_getoverrun, taken_id), 9);
	CHECK(sigtimedwait(&other, &info, &zero) < 0);
	CHECK_EQUAL(sigtimedwait(&pending, &info, &soon), SIGRTMIN + 1);
	CHECK_EQUAL(info.si_timerid, pending_id);
	if (root)
		CHECK_EQUAL(info.si_overrun, 9);
	CHECK(!syscall(SYS_timer_settime, id, 0, &none, NULL));
	test_pass();
}
