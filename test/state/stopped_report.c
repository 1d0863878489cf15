/* SPDX-License-Identifier: Apache-2.0 */
/* What the parent knows about stopped children: a report that was read does not come again. */
#include "harness.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static int child(void *arg)
{
	raise(SIGSTOP);
	return 1;
}

int main(void)
{
	siginfo_t info = {0};
	pid_t read, unread;
	int status;

	test_init();
	read = test_fork(child, NULL);
	unread = test_fork(child, NULL);
	CHECK_EQUAL(waitpid(read, &status, WUNTRACED), read);
	test_until_state(unread, 'T');
	test_wait();
	if (test_break(1))
		waitpid(unread, &status, WUNTRACED);
	CHECK(!waitid(P_PID, unread, &info, WSTOPPED | WNOHANG));
	CHECKF(info.si_pid == unread, "the report of a stop was lost");
	CHECK_EQUAL(info.si_status, SIGSTOP);
	info.si_pid = 0;
	CHECK(!waitid(P_PID, read, &info, WSTOPPED | WNOHANG));
	CHECKF(info.si_pid == 0, "a stop was reported twice");
	kill(read, SIGCONT);
	kill(unread, SIGCONT);
	test_reap(read, 1);
	test_reap(unread, 1);
	test_pass();
}
