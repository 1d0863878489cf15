/* SPDX-License-Identifier: Apache-2.0 */
/* Stopped processes stay stopped, by whatever signal, with all their threads. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const int signals[] = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
#define COUNT 4

static volatile int *shared;

static void *count(void *arg)
{
	volatile int *counter = arg;

	for (;;) {
		(*counter)++;
		usleep(500);
	}
	return NULL;
}

static int child(void *arg)
{
	int i = (int)(intptr_t)arg;
	pthread_t thread;

	/* Not an orphaned process group, else the terminal's signals would not stop it. */
	setpgid(0, 0);
	pthread_create(&thread, NULL, count, (void *)&shared[i]);
	while (!shared[i])
		usleep(1000);
	raise(signals[i]);
	while (!shared[10 + i])
		usleep(1000);
	return 50 + i;
}

int main(void)
{
	int before[COUNT], status;
	pid_t pids[COUNT];

	test_init();
	shared = test_shared(4096);
	for (int i = 0; i < COUNT; i++) {
		pids[i] = test_fork(child, (void *)(intptr_t)i);
		CHECK_EQUAL(waitpid(pids[i], &status, WUNTRACED), pids[i]);
		CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == signals[i]);
		before[i] = shared[i];
	}
	test_wait();
	if (test_break(1))
		kill(pids[1], SIGCONT);
	test_sleep(0.03);
	for (int i = 0; i < COUNT; i++) {
		CHECK_EQUAL(test_state(pids[i]), 'T');
		CHECKF(shared[i] == before[i], "child %d goes on: %d, was %d", i, shared[i],
		       before[i]);
	}
	for (int i = 0; i < COUNT; i++) {
		siginfo_t info = {0};

		CHECK(!kill(pids[i], SIGCONT));
		CHECK(!waitid(P_PID, pids[i], &info, WCONTINUED));
		CHECK_EQUAL(info.si_code, CLD_CONTINUED);
		shared[10 + i] = 1;
		test_reap(pids[i], 50 + i);
	}
	test_pass();
}
