/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A parent in vfork whose child executes a program soon: reprise waits for that.
 *
 * not-in: cycles: what it has is counted after the first one, while the program is loaded
 */
#include "harness.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	char name[] = "sleep", seconds[] = "1000", *argv[] = {name, seconds, NULL};
	int status;
	pid_t pid;

	test_init();
	test_ready();
	pid = vfork();
	CHECK(pid >= 0);
	if (pid == 0) {
		test_sleep(0.3);
		execv("/bin/sleep", argv);
		_exit(127);
	}
	test_hold();
	CHECK_EQUAL(kill(pid, test_break(1) ? 9 : 15), 0);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK_EQUAL(status, 15);
	test_pass();
}
