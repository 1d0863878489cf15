/* SPDX-License-Identifier: Apache-2.0 */
/* SEM_UNDO: what a process has taken is given back at its end, not at that of one of its threads;
 * processes that share a list (CLONE_SYSVSEM), a thread with its own.
 *
 * needs: root
 */
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOCK, GIVEN, THREAD, SHARED, APART, LIMIT, COUNT };

static int id;
static volatile int *checked;

static void operate(int num, int op, int flags)
{
	struct sembuf b = {
		.sem_num = (unsigned short)num, .sem_op = (short)op, .sem_flg = (short)flags};

	CHECKF(!semop(id, &b, 1), "operation %d on %d: %s", op, num, strerror(errno));
}

static void *in_thread(void *arg)
{
	operate(THREAD, -1, SEM_UNDO);
	return NULL;
}

static volatile int apart_done;

static void *apart(void *arg)
{
	CHECK(!unshare(CLONE_SYSVSEM));
	operate(APART, -1, SEM_UNDO);
	apart_done = 1;
	test_hold();
	while (semctl(id, LIMIT, GETVAL) != 100)
		usleep(1000);
	return NULL;
}

/* Holds the lock, has given 3 that are taken back, and a thread of it has taken one. */
static int holder(void *arg)
{
	pthread_t thread, other;

	operate(LOCK, -1, SEM_UNDO);
	operate(GIVEN, 3, SEM_UNDO);
	CHECK(!pthread_create(&thread, NULL, in_thread, NULL));
	CHECK(!pthread_join(thread, NULL));
	CHECK(!pthread_create(&other, NULL, apart, NULL));
	while (!apart_done)
		usleep(1000);
	/* Another has taken these meanwhile: at the end there are not 5 to take back. */
	operate(LIMIT, 5, SEM_UNDO);
	operate(LIMIT, -3, 0);
	operate(GIVEN, 0x1000, 0);
	test_hold();
	CHECK(!pthread_join(other, NULL));
	/* Its own list is at its end with the thread. */
	while (semctl(id, APART, GETVAL) != 1)
		usleep(1000);
	operate(GIVEN, 0x1000, 0);
	while (semctl(id, LIMIT, GETVAL) != 200)
		usleep(1000);
	return 7;
}

static int sharer(void *arg)
{
	operate(SHARED, -1, SEM_UNDO);
	while (!*checked)
		usleep(1000);
	return 8;
}

/* Made by a parent that shares its list. */
static int sharing(void *arg)
{
	pid_t child = (pid_t)syscall(SYS_clone, CLONE_SYSVSEM | SIGCHLD, NULL, NULL, NULL, NULL);

	CHECK(child >= 0);
	if (!child)
		_exit(sharer(NULL));
	test_reap(child, 8);
	/* The list is ours as well. */
	CHECK_EQUAL(semctl(id, SHARED, GETVAL), 0);
	return 9;
}

static void check_values(const int *values)
{
	for (int i = 0; i < COUNT; i++)
		CHECKF(semctl(id, i, GETVAL) == values[i], "semaphore %d is %d, not %d", i,
		       semctl(id, i, GETVAL), values[i]);
}

static void until(int num, int value)
{
	for (int i = 0; i < 5000 && semctl(id, num, GETVAL) != value; i++)
		usleep(1000);
	CHECKF(semctl(id, num, GETVAL) == value, "semaphore %d is %d, not %d", num,
	       semctl(id, num, GETVAL), value);
}

int main(void)
{
	static const int held[COUNT] = {0, 0x1003, 0, 0, 0, 2};
	pid_t pid, shared;

	test_init();
	checked = test_shared(4096);
	id = semget(IPC_PRIVATE, COUNT, 0600);
	CHECK(id >= 0);
	operate(LOCK, 1, 0);
	operate(THREAD, 1, 0);
	operate(SHARED, 1, 0);
	operate(APART, 1, 0);
	pid = test_fork(holder, NULL);
	shared = test_fork(sharing, NULL);
	until(GIVEN, 0x1003);
	until(SHARED, 0);

	test_wait();
	if (test_break(1))
		operate(LOCK, 1, 0);
	if (test_break(2))
		operate(GIVEN, -1, 0);
	check_values(held);
	*checked = 1;
	test_reap(shared, 9);
	until(SHARED, 1);
	operate(LIMIT, 98, 0);
	until(APART, 1);
	until(GIVEN, 0x2003);
	CHECK_EQUAL(semctl(id, LOCK, GETVAL), 0);
	operate(LIMIT, 100, 0);
	if (test_break(3))
		operate(LOCK, 1, 0);
	test_reap(pid, 7);
	/* What it held is given back, what it had given is taken. */
	CHECK_EQUAL(semctl(id, LOCK, GETVAL), 1);
	CHECK_EQUAL(semctl(id, THREAD, GETVAL), 1);
	CHECK_EQUAL(semctl(id, GIVEN, GETVAL), 0x2000);
	CHECK_EQUAL(semctl(id, LIMIT, GETVAL), 195);
	semctl(id, 0, IPC_RMID);
	test_pass();
}
