/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of processes that have ended are not given again before all others have been. */
#include "harness.h"

#include <stdlib.h>
#include <unistd.h>

static int nothing(void *arg)
{
	(void)arg;
	return 0;
}

static pid_t next(void)
{
	pid_t pid = test_fork(nothing, NULL);

	test_reap(pid, 0);
	return pid;
}

int main(void)
{
	pid_t last = 0, now;

	test_init();
	for (int i = 0; i < 40; i++)
		last = next();

	test_wait();
	if (test_break(1))
		last += 100000;
	/* Whoever has stopped and saved us had a number, too. */
	now = next();
	CHECKF(now > last && now < last + 1000, "%d comes after %d", now, last);
	test_pass();
}
