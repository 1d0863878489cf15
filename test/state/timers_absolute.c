/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX timers that fire at an absolute time, and one whose signal is already pending. */
#include "harness.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

int main(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	struct itimerspec at = {{0, 0}, {0, 0}};
	struct timespec patience = {20, 0};
	timer_t absolute, pending;
	siginfo_t info;
	double due;
	sigset_t set;

	test_init();
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, SIGRTMIN + 1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	CHECK(!timer_create(CLOCK_MONOTONIC, &event, &absolute));
	event.sigev_signo = SIGRTMIN + 1;
	event.sigev_value.sival_ptr = &due;
	CHECK(!timer_create(CLOCK_MONOTONIC, &event, &pending));
	due = test_now() + 0.5;
	at.it_value.tv_sec = (time_t)due;
	at.it_value.tv_nsec = (long)((due - (double)(time_t)due) * 1e9);
	CHECK(!timer_settime(absolute, TIMER_ABSTIME, &at, NULL));
	at.it_value = (struct timespec){0, 1};
	CHECK(!timer_settime(pending, 0, &at, NULL));
	test_sleep(0.005);

	test_wait();
	if (test_break(1))
		due += 1000;
	CHECK_EQUAL(sigtimedwait(&set, &info, &patience),
		    test_now() < due ? SIGRTMIN + 1 : info.si_signo);
	for (int i = 0; i < 2; i++) {
		CHECK_EQUAL(info.si_code, SI_TIMER);
		if (info.si_signo == SIGRTMIN)
			CHECKF(test_now() >= due - 0.0001, "early by %f s", due - test_now());
		else
			CHECK(info.si_value.sival_ptr == &due);
		if (!i)
			CHECK(sigtimedwait(&set, &info, &patience) > 0);
	}
	test_pass();
}
