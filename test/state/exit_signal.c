/* SPDX-License-Identifier: Apache-2.0 */
/* Children that announce their end by another signal than SIGCHLD, or by none. */
#include "harness.h"

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t got[65];

static void handler(int sig, siginfo_t *info, void *context)
{
	got[sig] = info->si_pid;
}

static pid_t clone_with(int sig)
{
	/* As fork, but for the signal. */
	pid_t pid = syscall(SYS_clone, sig, 0, 0, 0, 0);

	CHECK(pid >= 0);
	if (pid == 0) {
		test_hold();
		_exit(8);
	}
	return pid;
}

int main(void)
{
	const int signals[] = {SIGUSR1, SIGRTMIN + 5, 0, SIGCHLD};
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
	pid_t pids[4];

	test_init();
	for (int sig = 1; sig < 65; sig++)
		if (sig != SIGKILL && sig != SIGSTOP && sig != SIGSEGV && sig != SIGABRT)
			sigaction(sig, &action, NULL);
	for (int i = 0; i < 4; i++)
		pids[i] = clone_with(signals[i]);
	test_wait();
	for (int i = 0; i < 4; i++) {
		test_until_state(pids[i], 'Z');
		CHECK_EQUAL(test_stat(pids[i], 38), signals[i]);
	}
	/* A clone child is none for a plain wait. */
	CHECK_EQUAL(waitpid(-1, NULL, 0), pids[3]);
	CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
	for (int i = 0; i < 3; i++)
		test_reap(pids[i], 8);
	for (int sig = 1; sig < 65; sig++)
		for (int i = 0; i < 4; i++)
			if (sig == signals[i])
				CHECK_EQUAL(got[sig], pids[i] + !!test_break(1));
	test_pass();
}
