/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "freeze_common.h"

/* Forks and clones all the time; every task counts. */
static void *count_once(void *arg)
{
	shared->count++;
	return NULL;
}

static void multiply(void)
{
	signal(SIGCHLD, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (;;) {
		pid_t pid = fork();
		pthread_t t;

		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (!pthread_create(&t, NULL, count_once, NULL))
				pthread_join(t, NULL);
			shared->count++;
			if (fork() == 0)
				shared->count++;
			_exit(0);
		}
		shared->count++;
		shared->pid[0] = getpid();
		/* As many at once as two processors can cope with. */
		if (shared->count % 64 == 0)
			usleep(100);
	}
}

static void test_multiplying(void **state)
{
	pid_t pid = start(multiply);
	struct error e = {};

	wait_for(&shared->pid[0]);
	for (int i = 0; i < 100; i++) {
		_cleanup_(freezer_free) struct freezer f = make_freezer(pid);
		unsigned long before;
		int r = freezer_freeze(&f, &e);

		no_error(&e, r);
		before = shared->count;
		usleep(2 * MS);
		/* A task in the tree that got away would have counted. */
		assert_int_equal(shared->count, before);
		freezer_thaw(&f);
		for (int j = 0; shared->count == before && j < 1000; j++)
			usleep(MS);
		assert_true(shared->count != before);
	}
	end(pid);
}

static void count_signal(int sig)
{
	shared->signals++;
}

static void take_signals(void)
{
	struct sigaction sa = {.sa_handler = count_signal};

	sigaction(SIGRTMIN, &sa, NULL);
	shared->pid[0] = getpid();
	while (!shared->go) {
		usleep(200);
		shared->count++;
	}
}

/* None is lost, wherever it meets the stop. */
static void test_signals(void **state)
{
	pid_t pid = start(take_signals);
	unsigned long sent = 0;
	struct error e = {};
	int status;

	wait_for(&shared->pid[0]);
	for (int i = 0; i < 500; i++) {
		_cleanup_(freezer_free) struct freezer f = make_freezer(pid);

		sent += sigqueue(pid, SIGRTMIN, (union sigval){}) == 0;
		no_error(&e, freezer_freeze(&f, &e));
		sent += sigqueue(pid, SIGRTMIN, (union sigval){}) == 0;
		freezer_thaw(&f);
	}
	assert_int_equal(sent, 1000);
	for (int i = 0; shared->signals < sent && i < 1000; i++)
		usleep(MS);
	assert_int_equal(shared->signals, sent);
	shared->go = true;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void *stay(void *arg)
{
	if (gettid() != getpid())
		shared->pid[1] = gettid();
	for (;;) {
		usleep(MS);
		shared->count++;
	}
	return NULL;
}

/* A leader that has exited, a zombie, and one that waits. */
static void leave_zombies(void)
{
	pthread_t t;
	pid_t child = fork();

	if (child == 0)
		_exit(3);
	shared->pid[2] = child;
	pthread_create(&t, NULL, stay, NULL);
	while (!shared->pid[1])
		usleep(MS);
	shared->pid[0] = getpid();
	syscall(SYS_exit, 0);
}

static void test_zombies(void **state)
{
	pid_t pid = start(leave_zombies);
	struct freezer f = make_freezer(pid);
	struct error e = {};

	wait_for(&shared->pid[0]);
	wait_for_state(pid, "Z");
	wait_for_state(shared->pid[2], "Z");
	for (int i = 0; i < 3; i++) {
		no_error(&e, freezer_freeze(&f, &e));
		assert_int_equal(f.processes.n, 2);
		assert_false(f.processes.v[0].zombie);
		assert_int_equal(f.processes.v[0].threads.n, 2);
		assert_true(f.processes.v[0].threads.v[0].zombie);
		assert_int_equal(f.processes.v[0].threads.v[1].tid, shared->pid[1]);
		assert_non_null(f.processes.v[0].threads.v[1].cpu);
		assert_true(f.processes.v[1].zombie);
		assert_int_equal(f.processes.v[1].pid, shared->pid[2]);
		assert_int_equal(f.processes.v[1].ppid, pid);
		assert_int_equal(f.processes.v[1].threads.n, 0);
		freezer_free(&f);
	}
	end(pid);
}

static void run_threads(void)
{
	pthread_t t;

	pthread_create(&t, NULL, stay, NULL);
	pthread_create(&t, NULL, stay, NULL);
	shared->pid[0] = getpid();
	stay(NULL);
}

/* Stopped by job control before: stopped after, until somebody continues it. */
static void test_job_stop(void **state)
{
	pid_t pid = start(run_threads);
	struct error e = {};

	wait_for(&shared->pid[0]);
	for (int i = 0; i < 50; i++) {
		_cleanup_(freezer_free) struct freezer f = make_freezer(pid);
		unsigned long before;

		kill(pid, SIGSTOP);
		if (i % 2) /* else it stops while we freeze it */
			wait_for_state(pid, "T");
		no_error(&e, freezer_freeze(&f, &e));
		/* Without that the signal may be pending still. */
		if (i % 2) {
			assert_true(f.processes.v[0].job_stopped);
			assert_int_equal(f.processes.v[0].stop_signal, SIGSTOP);
		}
		freezer_thaw(&f);
		wait_for_state(pid, "T");
		before = shared->count;
		usleep(5 * MS);
		assert_int_equal(shared->count, before);
		kill(pid, SIGCONT);
		for (int j = 0; shared->count == before && j < 1000; j++)
			usleep(MS);
		assert_true(shared->count != before);
	}
	end(pid);
}

static void test_stop_and_kill(void **state)
{
	pid_t pid = start(run_threads);
	struct freezer f = make_freezer(pid);
	struct error e = {};
	unsigned long before;
	int status;

	wait_for(&shared->pid[0]);
	no_error(&e, freezer_freeze(&f, &e));
	before = shared->count;
	no_error(&e, freezer_stop(&f, &e));
	freezer_free(&f);
	wait_for_state(pid, "T");
	usleep(5 * MS);
	assert_int_equal(shared->count, before);
	kill(pid, SIGCONT);
	f = make_freezer(pid);
	no_error(&e, freezer_freeze(&f, &e));
	no_error(&e, freezer_kill(&f, &e));
	freezer_free(&f);
	assert_int_equal(waitpid(pid, &status, __WALL),
			 -1); /* we were its tracer and took it away */
	assert_int_equal(kill(pid, 0), -1);
}

/* While all stand still, the highest that we may have. */
static void test_priority(void **state)
{
	pid_t pid = start(run_threads);
	int own = getpriority(PRIO_PROCESS, 0), most = own;
	struct error e = {};

	if (setpriority(PRIO_PROCESS, 0, PRIO_MIN) == 0)
		most = PRIO_MIN;
	assert_int_equal(setpriority(PRIO_PROCESS, 0, own), 0);
	wait_for(&shared->pid[0]);
	for (int patient = 0; patient < 2; patient++) {
		_cleanup_(freezer_free) struct freezer f = make_freezer(pid);

		f.patient = patient;
		no_error(&e, freezer_freeze(&f, &e));
		assert_int_equal(getpriority(PRIO_PROCESS, 0), patient ? own : most);
		freezer_thaw(&f);
		assert_int_equal(getpriority(PRIO_PROCESS, 0), own);
		no_error(&e, freezer_freeze(&f, &e));
		if (patient)
			no_error(&e, freezer_kill(&f, &e));
		else
			no_error(&e, freezer_stop(&f, &e));
		assert_int_equal(getpriority(PRIO_PROCESS, 0), own);
	}
	assert_int_equal(waitpid(pid, NULL, __WALL), -1); /* taken away by its tracer */
	assert_int_equal(kill(pid, 0), -1);
}

static void be_traced(void)
{
	pid_t child = fork();

	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
	}
	waitpid(child, NULL, 0);
	shared->pid[0] = child;
	pause();
}

static void test_refusals(void **state)
{
	pid_t pid = start(run_threads), traced;

	wait_for(&shared->pid[0]);
	wait_for(&shared->pid[1]);
	refused(shared->pid[1], E_PID_THREAD);
	refused(getpid(), E_PID_SELF);
	kill(pid, SIGKILL);
	wait_for_state(pid, "Z");
	refused(pid, E_PID_ZOMBIE);
	end(pid);
	refused(pid, E_PID_NONE);
	pid = start(be_traced);
	wait_for(&shared->pid[0]);
	traced = shared->pid[0];
	refused(pid, E_TASK_TRACED);
	refused(traced, E_TASK_TRACED);
	kill(traced, SIGKILL);
	end(pid);
}

/* epoll_wait() fails with EINTR after a bare stop, though no handler has run. */
static void wait_epoll(void)
{
	struct epoll_event event;
	int set = epoll_create1(0);
	pid_t child;

	signal(SIGUSR1, count_signal);
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		pause();
	}
	waitpid(child, NULL, 0);
	shared->pid[1] = child;
	shared->pid[0] = getpid();
	for (;;) {
		epoll_wait(set, &event, 1, -1);
		shared->count++;
	}
}

/* Nothing is noticed of a freeze that is given up, nor of one that succeeds. */
static void test_interrupted(void **state)
{
	pid_t pid = start(wait_epoll);
	struct error e = {};

	wait_for(&shared->pid[0]);
	wait_for_state(pid, "S");
	for (int i = 0; i < 20; i++)
		refused(pid, E_TASK_TRACED);
	kill(shared->pid[1], SIGKILL);
	wait_for_state(shared->pid[1], "Z");
	for (int i = 0; i < 20; i++) {
		_cleanup_(freezer_free) struct freezer f = make_freezer(pid);

		no_error(&e, freezer_freeze(&f, &e));
	}
	wait_for_state(pid, "S");
	assert_int_equal(shared->count, 0);
	/* A handler that runs when it is over does interrupt it. */
	for (int i = 1; i < 5; i++) {
		_cleanup_(freezer_free) struct freezer f = make_freezer(pid);

		no_error(&e, freezer_freeze(&f, &e));
		kill(pid, SIGUSR1);
		freezer_thaw(&f);
		for (int j = 0; shared->count != (unsigned long)i && j < 2000; j++)
			usleep(MS);
		assert_int_equal(shared->count, i);
		assert_int_equal(shared->signals, i);
		wait_for_state(pid, "S");
	}
	end(pid);
}

/* The tree holds ourselves: we and ours are left out. */
static void freeze_parent(void)
{
	struct freezer f = make_freezer(getppid());
	struct error e = {};
	pid_t child = fork();

	if (child == 0)
		for (;;)
			pause();
	f.self = getpid();
	if (freezer_freeze(&f, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
	} else {
		shared->count = f.processes.n;
		freezer_thaw(&f);
	}
	freezer_free(&f);
	kill(child, SIGKILL);
	shared->pid[0] = getpid();
}

static void test_self(void **state)
{
	pid_t pid = start(freeze_parent);

	wait_for(&shared->pid[0]);
	assert_int_equal(shared->count, 1);
	end(pid);
}

/* Threads that come and go, and exec in the middle of all. */
static pid_t shared_parent;
static char parent_text[16];

static void *exec_again(void *arg)
{
	usleep((useconds_t)(uintptr_t)arg);
	/* The signal that tells of a parent's death is the leader's alone. */
	if (getppid() == shared_parent)
		execl("/proc/self/exe", "freeze", "exec-again", parent_text, NULL);
	else
		_exit(0);
	return NULL; /* another was faster */
}

static void keep_executing(void)
{
	pthread_t t;

	if (!shared_parent)
		shared_parent = getppid();
	snprintf(parent_text, sizeof(parent_text), "%d", shared_parent);
	for (int i = 0; i < 4; i++)
		pthread_create(&t, NULL, exec_again,
			       (void *)(uintptr_t)(500 + (getpid() + i * 37 + time(NULL)) % 900));
	for (;;)
		pause();
}

static void test_exec(void **state)
{
	pid_t pid = start(keep_executing);
	struct error e = {};

	usleep(20 * MS);
	for (int i = 0; i < 200; i++) {
		_cleanup_(freezer_free) struct freezer f = make_freezer(pid);

		no_error(&e, freezer_freeze(&f, &e));
		assert_int_equal(f.processes.n, 1);
		vec_for_each (t, &f.processes.v[0].threads) {
			struct proc_stat st;

			assert_int_equal(proc_stat_read(proc_fd, pid, t->tid, &st, &e), 0);
			assert_int_equal(st.state, 't');
		}
		freezer_thaw(&f);
		usleep((useconds_t)(i * 13) % 700);
	}
	assert_int_equal(kill(pid, 0), 0);
	end(pid);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_multiplying),   cmocka_unit_test(test_signals),
		cmocka_unit_test(test_zombies),	      cmocka_unit_test(test_job_stop),
		cmocka_unit_test(test_stop_and_kill), cmocka_unit_test(test_priority),
		cmocka_unit_test(test_refusals),      cmocka_unit_test(test_interrupted),
		cmocka_unit_test(test_self),	      cmocka_unit_test(test_exec),
	};

	if (argc > 2 && !strcmp(argv[1], "exec-again")) {
		shared_parent = atoi(argv[2]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		keep_executing();
	}
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	if (!share())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
