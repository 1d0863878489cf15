/* SPDX-License-Identifier: Apache-2.0 */
/* A task in strict seccomp mode: it may read, write and exit, no more.
 *
 * needs: root
 */
#include "harness.h"

#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int in[2], out[2];

static int strict(void *arg)
{
	char c = 'r';

	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
	(void)!write(out[1], &c, 1);
	(void)!read(in[0], &c, 1);
	c++;
	(void)!write(out[1], &c, 1);
	(void)!read(in[0], &c, 1);
	if (c == 'x')
		syscall(SYS_exit, 5);
	getpid(); /* forbidden */
	syscall(SYS_exit, 6);
	return 0;
}

static pid_t start(void)
{
	pid_t pid = test_fork(strict, NULL);
	char c = 0;

	CHECK(read(out[0], &c, 1) == 1 && c == 'r');
	return pid;
}

static void step(char c, char expected)
{
	CHECK_EQUAL(write(in[1], &c, 1), 1);
	if (expected) {
		CHECK_EQUAL(read(out[0], &c, 1), 1);
		CHECK_EQUAL(c, expected);
	}
}

int main(void)
{
	char path[64], mode[16];
	int status;
	pid_t pid;

	test_init();
	CHECK(!pipe(in) && !pipe(out));
	pid = start();
	test_until_in(pid, SYS_read);
	test_wait();
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	test_line(path, "Seccomp", mode, sizeof(mode));
	CHECK_EQUAL(mode[0], '1');
	step('a', 'b');
	step(test_break(1) ? 'x' : 'y', 0);
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECKF(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
	       "a forbidden call was allowed: status %x", status);
	test_pass();
}
