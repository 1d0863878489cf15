/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two threads of a process wait in vfork(), one of them the leader; a third one goes on, and the
 * process has timers and pending signals.
 *
 * may-refuse: task-vfork
 */
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char stacks[2][65536] __attribute__((aligned(64)));
static volatile pid_t tids[3], pids[2];
static volatile int done;
static timer_t timer;

static int child(void *arg)
{
	int i = (int)(intptr_t)arg;

	pids[i] = syscall(SYS_getpid);
	test_hold();
	execl("/bin/sh", "sh", "-c", i ? "exit 21" : "exit 20", NULL);
	_exit(1);
}

/* As posix_spawn() does it; each thread has its own mask. */
static void *spawn(void *arg)
{
	int i = (int)(intptr_t)arg;
	sigset_t set, now;
	pid_t pid;

	tids[i] = syscall(SYS_gettid);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, i ? SIGUSR1 : SIGUSR2);
	CHECK(!pthread_sigmask(SIG_SETMASK, &set, NULL));
	pid = clone(child, stacks[i] + sizeof(stacks[i]), CLONE_VM | CLONE_VFORK | SIGCHLD, arg);
	CHECK_EQUAL(pid, pids[i] + !!test_break(1));
	CHECK_EQUAL(syscall(SYS_gettid), tids[i]);
	CHECK(!pthread_sigmask(SIG_SETMASK, NULL, &now));
	CHECK_EQUAL(sigismember(&now, SIGUSR1), i);
	CHECK_EQUAL(sigismember(&now, SIGUSR2), !i);
	test_reap(pid, 20 + i);
	__atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void *go_on(void *arg)
{
	const struct itimerspec its = {.it_value = {.tv_sec = 100000}};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	struct timespec none = {};
	struct itimerspec left;
	siginfo_t info;
	sigset_t set;

	tids[2] = syscall(SYS_gettid);
	CHECK(!timer_create(CLOCK_MONOTONIC, &event, &timer));
	CHECK(!timer_settime(timer, 0, &its, NULL));
	CHECK(!sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 4711}));
	for (int i = 0; i < 2; i++) {
		while (!pids[i])
			usleep(1000);
		test_until_state(tids[i], 'D');
	}
	test_wait();
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	CHECK_EQUAL(sigtimedwait(&set, &info, &none), SIGRTMIN);
	CHECK_EQUAL(info.si_value.sival_int, 4711 + !!test_break(2));
	CHECK(!timer_gettime(timer, &left));
	CHECKF(left.it_value.tv_sec > 70000, "%ld s", (long)left.it_value.tv_sec);
	return NULL;
}

int main(void)
{
	pthread_t other[2];
	sigset_t set;

	test_init();
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	CHECK(!pthread_sigmask(SIG_SETMASK, &set, NULL));
	CHECK(!pthread_create(&other[0], NULL, go_on, NULL));
	CHECK(!pthread_create(&other[1], NULL, spawn, (void *)1));
	spawn(NULL);
	CHECK(!pthread_join(other[0], NULL) && !pthread_join(other[1], NULL));
	CHECK_EQUAL(done, 2);
	test_pass();
}
