/* SPDX-License-Identifier: Apache-2.0 */
/* Children that have ended and were not reaped: how they ended, who they were. */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT 10

/* Not where somebody would be told of it. */
static int dumps_into_files(void)
{
	char first[2] = "";
	FILE *f = fopen("/proc/sys/kernel/core_pattern", "r");

	CHECK(f && fgets(first, sizeof(first), f));
	fclose(f);
	return *first != '|' && *first != '@' && *first != '/' && *first != '\n';
}

static void dump_core(void)
{
	struct rlimit all;

	CHECK(!getrlimit(RLIMIT_CORE, &all));
	all.rlim_cur = all.rlim_max;
	CHECK(!setrlimit(RLIMIT_CORE, &all));
	CHECK(!chdir(getenv("TEST_CONTROL")));
	CHECK(!mkdir("dumped", 0700) && !chdir("dumped"));
	abort();
}

static int end(void *arg)
{
	int i = (int)(intptr_t)arg;

	prctl(PR_SET_NAME, "zombie-to-be");
	if (i == 3)
		setpgid(0, 0);
	if (i == 4)
		setsid();
	if (i == 1 || i == 5 || i == 6)
		raise(i == 1 ? SIGTERM : i == 5 ? SIGKILL : SIGRTMIN + 3);
	if (i == 9 && dumps_into_files())
		dump_core();
	if (i == 7) /* limits do not allow a core file */
		abort();
	return i == 2 ? 255 : i == 0 ? 0 : 60 + i;
}

int main(void)
{
	pid_t pids[COUNT], pgids[COUNT], sids[COUNT];
	struct rlimit core;
	int before[COUNT], codes[COUNT], status;
	siginfo_t info;
	sigset_t set, pending;

	test_init();
	CHECK(!getrlimit(RLIMIT_CORE, &core));
	core.rlim_cur = 0;
	CHECK(!setrlimit(RLIMIT_CORE, &core));
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < COUNT; i++) {
		pids[i] = test_fork(end, (void *)(intptr_t)i);
		memset(&info, 0, sizeof(info));
		CHECK(!waitid(P_PID, pids[i], &info, WEXITED | WNOWAIT));
		codes[i] = info.si_code;
		before[i] = info.si_status;
		CHECK_EQUAL(test_state(pids[i]), 'Z');
		pgids[i] = test_stat(pids[i], 5);
		sids[i] = test_stat(pids[i], 6);
	}
	/* The signal that told of them has been taken. */
	CHECK_EQUAL(sigwaitinfo(&set, NULL), SIGCHLD);

	test_wait();
	if (test_break(1))
		waitpid(pids[5], NULL, 0);
	if (test_break(2))
		raise(SIGCHLD);
	sigpending(&pending);
	CHECKF(!sigismember(&pending, SIGCHLD), "SIGCHLD is pending again");
	for (int i = 0; i < COUNT; i++) {
		char name[64], path[64];

		CHECK_EQUAL(test_state(pids[i]), 'Z');
		CHECK_EQUAL(test_stat(pids[i], 5), pgids[i]);
		CHECK_EQUAL(test_stat(pids[i], 6), sids[i]);
		snprintf(path, sizeof(path), "/proc/%d/status", pids[i]);
		test_line(path, "Name", name, sizeof(name));
		CHECKF(!strcmp(name, "zombie-to-be"), "name of zombie %d: %s", i, name);
		memset(&info, 0, sizeof(info));
		CHECK(!waitid(P_PID, pids[i], &info, WEXITED | WNOWAIT));
		CHECK_EQUAL(info.si_code, codes[i]);
		CHECK_EQUAL(info.si_status, before[i]);
		CHECK_EQUAL(info.si_pid, pids[i]);
		CHECK_EQUAL(waitpid(pids[i], &status, 0), pids[i]);
		if (codes[i] == CLD_EXITED)
			CHECK(WIFEXITED(status) && WEXITSTATUS(status) == before[i]);
		else
			CHECK(WIFSIGNALED(status) && WTERMSIG(status) == before[i]);
		CHECK_EQUAL(WIFSIGNALED(status) && WCOREDUMP(status), codes[i] == CLD_DUMPED);
	}
	CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
	test_pass();
}
