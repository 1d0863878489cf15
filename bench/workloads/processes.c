/* SPDX-License-Identifier: Apache-2.0 */
/* processes READY N: a process and N - 1 children, every other in read() of a pipe, the rest in
 * pause(). */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

static void child(int in, size_t i)
{
	char byte;

	for (;;) {
		if (i % 2)
			pause();
		else
			need(read(in, &byte, 1) == 1 || errno == EINTR);
	}
}

static int intact(void *arg)
{
	const size_t *children = arg;
	siginfo_t info = {.si_pid = 0};

	/* None of them has ended, and, if there ought to be any, they are still ours. */
	if (!*children)
		return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && !info.si_pid;
}

int main(int argc, char **argv)
{
	size_t children;
	int ends[2];

	need(argc == 3);
	children = parse_size(argv[2]) - 1;
	need(pipe(ends) == 0);
	answer_later();
	for (size_t i = 0; i < children; i++) {
		pid_t pid = fork();

		need(pid >= 0);
		if (pid == 0)
			child(ends[0], i);
	}
	sleep_and_answer(argv[1], intact, &children);
}
