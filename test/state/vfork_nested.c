/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root of the tree waits in vfork() for a child that waits in vfork() for one of its own.
 *
 * may-refuse: task-vfork
 */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile pid_t pids[2];

static void handler(int sig)
{
}

/* Each in a frame of its own: the parents wait in those below. */
__attribute__((noinline)) static void second(void)
{
	struct sigaction sa;
	sigset_t set;
	pid_t pid;

	pids[0] = syscall(SYS_getpid);
	signal(SIGUSR1, SIG_IGN);
	CHECK_EQUAL(open("/dev/null", O_RDONLY), 50);
	pid = vfork();
	CHECK(pid >= 0);
	if (pid == 0) {
		pids[1] = syscall(SYS_getpid);
		signal(SIGUSR1, SIG_DFL);
		sigfillset(&set);
		sigprocmask(SIG_SETMASK, &set, NULL);
		test_wait();
		CHECK(fcntl(50, F_GETFD) == 0 && fcntl(51, F_GETFD) < 0);
		execl("/bin/sh", "sh", "-c", "exit 3", NULL);
		_exit(1);
	}
	CHECK_EQUAL(pid, pids[1]);
	CHECK(!sigaction(SIGUSR1, NULL, &sa));
	CHECK(sa.sa_handler == (test_break(1) ? SIG_DFL : SIG_IGN));
	CHECK(!sigprocmask(SIG_SETMASK, NULL, &set));
	CHECK(!sigismember(&set, SIGTERM));
	test_reap(pid, 3);
	execl("/bin/sh", "sh", "-c", "exit 4", NULL);
	_exit(1);
}

int main(void)
{
	struct sigaction sa = {.sa_handler = handler};
	pid_t pid;

	test_init();
	CHECK(!sigaction(SIGUSR1, &sa, NULL));
	CHECK_EQUAL(fcntl(2, F_DUPFD, 50), 50);
	close(50);
	CHECK_EQUAL(dup2(2, 49), 49);
	for (int fd = 3; fd < 49; fd++)
		dup2(2, fd);
	pid = vfork();
	CHECK(pid >= 0);
	if (pid == 0)
		second();
	CHECK_EQUAL(pid, pids[0] + !!test_break(2));
	CHECK(!sigaction(SIGUSR1, NULL, &sa));
	CHECK(sa.sa_handler == handler);
	CHECK(fcntl(50, F_GETFD) < 0 && fcntl(49, F_GETFD) == 0);
	test_reap(pid, 4);
	test_pass();
}
