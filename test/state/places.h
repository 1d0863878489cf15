/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_STATE_PLACES_H
#define TEST_STATE_PLACES_H

/*
 * Processes of one tree that wait for one another: each has a place in shared memory, where it says
 * its pid, as it sees itself, when it has come so far.
 */

#include "harness.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile pid_t *shared;

static inline void say(int i)
{
	shared[i] = getpid();
}

static inline void ready(int i)
{
	say(i);
	test_hold();
}

static inline pid_t await(int i)
{
	while (!shared[i])
		usleep(1000);
	return shared[i];
}

/* flags: of clone(2). */
static inline pid_t make(int (*fn)(void *), void *arg, int flags)
{
	pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(fn(arg));
	CHECK(pid > 0);
	return pid;
}

#endif
