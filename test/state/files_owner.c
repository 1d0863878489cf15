/* SPDX-License-Identifier: Apache-2.0 */
/* Who is told by a signal that there is something to read: F_SETOWN, F_SETSIG, O_ASYNC. */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

int main(void)
{
	struct f_owner_ex owner = {.type = F_OWNER_PID}, now;
	struct timespec patience = {5, 0};
	siginfo_t info;
	sigset_t set;
	int ends[2], file;

	test_init();
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 4);
	sigprocmask(SIG_BLOCK, &set, NULL);
	CHECK(!pipe(ends));
	owner.pid = getpid();
	CHECK(!fcntl(ends[0], F_SETOWN_EX, &owner));
	CHECK(!fcntl(ends[0], F_SETSIG, SIGRTMIN + 4));
	CHECK(!fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK));
	file = test_file("file", 10, 1);
	CHECK(!fcntl(file, F_SETOWN, -getpgrp()));
	test_wait();
	if (test_break(1))
		fcntl(ends[0], F_SETFL, O_NONBLOCK);
	CHECK_EQUAL(fcntl(ends[0], F_GETFL), O_ASYNC | O_NONBLOCK);
	CHECK_EQUAL(fcntl(ends[0], F_GETSIG), SIGRTMIN + 4);
	CHECK(!fcntl(ends[0], F_GETOWN_EX, &now));
	CHECK_EQUAL(now.type, F_OWNER_PID);
	CHECK_EQUAL(now.pid, getpid());
	CHECK(!fcntl(file, F_GETOWN_EX, &now));
	CHECK_EQUAL(now.type, F_OWNER_PGRP);
	CHECK_EQUAL(now.pid, getpgrp());
	CHECK_EQUAL(write(ends[1], "x", 1), 1);
	CHECK_EQUAL(sigtimedwait(&set, &info, &patience), SIGRTMIN + 4);
	CHECK_EQUAL(info.si_fd, ends[0]);
	test_pass();
}
