/* SPDX-License-Identifier: Apache-2.0 */
/* Parents that wait for children: wait4, waitid, of one, any, or a group; for end or stop. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT 4

static int child(void *arg)
{
	if ((intptr_t)arg == 3)
		setpgid(0, 0);
	test_hold();
	if ((intptr_t)arg == 2)
		raise(SIGSTOP);
	return 70 + (int)(intptr_t)arg;
}

static pid_t pids[COUNT];
static volatile pid_t tids[COUNT];

static void *waiter(void *arg)
{
	int i = (int)(intptr_t)arg, status = -1;
	struct rusage usage = {.ru_nvcsw = -1};
	siginfo_t info = {0};

	tids[i] = syscall(SYS_gettid);
	switch (i) {
	case 0:
		CHECK_EQUAL(syscall(SYS_wait4, pids[0], &status, 0, &usage), pids[0]);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 70);
		CHECK(usage.ru_nvcsw >= 0);
		break;
	case 1:
		CHECK_EQUAL(waitid(P_PID, pids[1], &info, WEXITED), 0);
		CHECK(info.si_code == CLD_EXITED && info.si_status == 71 - !!test_break(1));
		break;
	case 2:
		CHECK_EQUAL(waitid(P_PID, pids[2], &info, WSTOPPED), 0);
		CHECK(info.si_code == CLD_STOPPED && info.si_status == SIGSTOP);
		kill(pids[2], SIGCONT);
		test_reap(pids[2], 72);
		break;
	case 3:
		CHECK_EQUAL(waitpid(-pids[3], &status, WUNTRACED), pids[3]);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 73);
		break;
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[COUNT];

	test_init();
	for (int i = 0; i < COUNT; i++)
		pids[i] = test_fork(child, (void *)(intptr_t)i);
	while (getpgid(pids[3]) != pids[3])
		usleep(1000);
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_create(&threads[i], NULL, waiter, (void *)(intptr_t)i));
	for (int i = 0; i < COUNT; i++) {
		while (!tids[i])
			usleep(1000);
		test_until_in(tids[i], i == 0 || i == 3 ? SYS_wait4 : SYS_waitid);
	}
	test_wait();
	for (int i = 0; i < COUNT; i++)
		CHECK(!pthread_join(threads[i], NULL));
	test_pass();
}
