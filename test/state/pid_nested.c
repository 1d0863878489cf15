/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pid namespaces below that of the root: every task has its numbers at each level again, and
 * what is known by number still leads to it.
 *
 * needs: root
 */
#include "places.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LEADER, INIT, MEMBER, ORPHAN, DEEP, DEEPER, LATER, UNBORN, SIGNALLED, STOPPED, PLACES };

static volatile int *found;

/* ---- a session, groups, a thread with a timer, an orphan ---- */

static int orphan(void *arg)
{
	pid_t sid = getsid(0), pid = getpid();

	while (getppid() != 1)
		usleep(1000);
	ready(ORPHAN);
	CHECK(getppid() == 1 && getsid(0) == sid && sid > 1 && getpid() == pid);
	return 21;
}

static int middle(void *arg)
{
	make(orphan, NULL, 0);
	return 0;
}

static volatile pid_t timed;

static void on_timer(int sig, siginfo_t *info, void *context)
{
	timed = (pid_t)syscall(SYS_gettid);
}

static void *timed_thread(void *arg)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR2};
	struct sigaction act = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
	const struct itimerspec soon = {.it_value = {.tv_nsec = 1000000}};
	pid_t tid = (pid_t)syscall(SYS_gettid);
	timer_t timer;

	CHECK(!sigaction(SIGUSR2, &act, NULL));
	event._sigev_un._tid = tid;
	CHECK(!timer_create(CLOCK_MONOTONIC, &event, &timer));
	found[0] = tid;
	test_hold();
	CHECK_EQUAL(syscall(SYS_gettid), tid);
	CHECK(!timer_settime(timer, 0, &soon, NULL));
	while (!timed)
		usleep(1000);
	CHECK_EQUAL(timed, tid);
	return NULL;
}

static int member(void *arg)
{
	pthread_t thread;
	pid_t pid = getpid();

	CHECK(setsid() == pid);
	test_reap(make(middle, NULL, 0), 0);
	await(ORPHAN);
	CHECK(!pthread_create(&thread, NULL, timed_thread, NULL));
	while (!found[0])
		usleep(1000);
	ready(MEMBER);
	CHECK(getpid() == pid && getsid(0) == pid && getpgid(0) == pid && getppid() == 1);
	CHECK(!pthread_join(thread, NULL));
	return 22;
}

/* ---- signals and their senders ---- */

static int signalled(void *arg)
{
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK(!sigprocmask(SIG_BLOCK, &set, NULL));
	ready(SIGNALLED);
	CHECK(sigwaitinfo(&set, &info) == SIGUSR1);
	CHECK(info.si_pid == 1 && !kill(getppid(), 0) && getpgid(0) == getpid());
	return 23;
}

static int stopped(void *arg)
{
	shared[STOPPED] = getpid();
	raise(SIGSTOP);
	return 24;
}

/* ---- two levels more ---- */

static int deeper(void *arg)
{
	ready(DEEPER);
	CHECK(getpid() == 1 && getppid() == 0);
	return 25;
}

static int deep(void *arg)
{
	pid_t pid = make(deeper, NULL, CLONE_NEWPID);

	await(DEEPER);
	ready(DEEP);
	CHECK(getpid() == 1 && getppid() == 0 && getpgid(0) == 0);
	test_reap(pid, 25);
	return 26;
}

/* ---- the first process of a namespace ---- */

static int init(void *arg)
{
	pid_t mine = make(member, NULL, 0), orphaned = await(ORPHAN), below, waits, halted;
	int group = fcntl(*(int *)arg, F_SETOWN, mine), status;

	await(MEMBER);
	waits = make(signalled, NULL, 0);
	CHECK(!group && !setpgid(waits, waits) && await(SIGNALLED) == waits);
	CHECK(!kill(waits, SIGUSR1));
	halted = make(stopped, NULL, 0);
	CHECK(waitpid(halted, &status, WUNTRACED) == halted && WIFSTOPPED(status));
	below = make(deep, NULL, CLONE_NEWPID);
	await(DEEP);
	ready(INIT);
	if (test_break(1))
		mine++;
	CHECK(getpid() == 1 && getppid() == 0 && getpgid(0) == 0);
	CHECK_EQUAL(fcntl(*(int *)arg, F_GETOWN), mine);
	test_reap(mine, 22);
	test_reap(orphaned, 21);
	test_reap(waits, 23);
	CHECK(!kill(halted, SIGCONT));
	test_reap(halted, 24);
	test_reap(below, 26);
	/* with its end nobody can be made there any more */
	while (!found[1])
		usleep(1000);
	return 27;
}

static int later(void *arg)
{
	CHECK(getpid() > 1 && getppid() == 0 && !kill(1, 0));
	return 28;
}

/* Its children are born in another namespace than itself. */
static int leader(void *arg)
{
	pid_t pid;

	CHECK(!setpgid(0, 0) && !unshare(CLONE_NEWPID));
	pid = make(init, arg, 0);
	await(INIT);
	ready(LEADER);
	if (test_break(2))
		CHECK(!setns((int)syscall(SYS_pidfd_open, getpid(), 0), CLONE_NEWPID));
	CHECK(getpid() == shared[LEADER] && getpgid(pid) == getpid());
	test_reap(make(later, NULL, 0), 28);
	found[1] = 1;
	test_reap(pid, 27);
	/* of one that has ended nothing is told */
	while (!found[2])
		usleep(1000);
	return 30;
}

/* ---- one without a process yet ---- */

static int first(void *arg)
{
	return getpid() == 1 ? 31 : 1;
}

static int unborn(void *arg)
{
	CHECK(!unshare(CLONE_NEWPID));
	ready(UNBORN);
	test_reap(make(first, NULL, 0), 31);
	return 32;
}

/* ---- those that have ended ---- */

static int sleeps(void *arg)
{
	pause();
	return 1;
}

static void numbers(pid_t pid, char *line)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	test_line(path, "NSpid", line, 200);
}

int main(void)
{
	char before[4][200], after[200];
	pid_t pid[4];
	struct stat held, is;
	int pipe_fds[2], pidfd, ns, status;

	test_init();
	shared = test_shared(4096);
	found = (volatile int *)shared + PLACES;
	CHECK(!pipe(pipe_fds));
	pid[0] = make(leader, &pipe_fds[0], 0);
	await(LEADER);
	pid[1] = make(unborn, NULL, 0);
	await(UNBORN);
	pid[2] = make(first, NULL, CLONE_NEWPID);
	pid[3] = make(sleeps, NULL, CLONE_NEWPID);
	test_until_state(pid[2], 'Z');
	CHECK(!kill(pid[3], SIGKILL));
	test_until_state(pid[3], 'Z');
	pidfd = (int)syscall(SYS_pidfd_open, pid[0], 0);
	CHECK(pidfd >= 0);
	snprintf(after, sizeof(after), "/proc/%d/ns/pid_for_children", pid[0]);
	ns = open(after, O_RDONLY);
	CHECK(ns >= 0);
	for (int i = 0; i < 4; i++)
		numbers(pid[i], before[i]);
	test_wait();
	CHECK(!fstat(ns, &held) && !stat("/proc/self/ns/pid", &is) && held.st_ino != is.st_ino);
	snprintf(after, sizeof(after), "/proc/%d/ns/pid_for_children", pid[0]);
	CHECK(!stat(after, &is) && held.st_ino == is.st_ino);
	for (int i = 0; i < 4; i++) {
		numbers(pid[i], after);
		CHECKF(!strcmp(before[i], after), "NSpid of %d was %s, is %s", pid[i], before[i],
		       after);
	}
	CHECK(!syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
	found[2] = 1;
	test_reap(pid[0], 30);
	test_reap(pid[1], 32);
	test_reap(pid[2], 31);
	CHECK(waitpid(pid[3], &status, 0) == pid[3]);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	test_pass();
}
