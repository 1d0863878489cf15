/* SPDX-License-Identifier: Apache-2.0 */
/* System V semaphores: values, who changed them last, times, permissions, tasks that wait. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KEY 0x5eaf00d
enum { FREE, TAKEN, TIMED, ZERO, BY_CHILD, COUNT };

static int id;
static volatile int *early;

static int operate(int num, int op, const struct timespec *timeout)
{
	struct sembuf b = {.sem_num = (unsigned short)num, .sem_op = (short)op};

	return semtimedop(id, &b, 1, timeout);
}

static int taker(void *arg)
{
	CHECK(!operate(TAKEN, -2, NULL));
	CHECK(!*early);
	return 3;
}

static int timed_taker(void *arg)
{
	const struct timespec long_time = {.tv_sec = 3600};

	CHECK(!operate(TIMED, -1, &long_time));
	CHECK(!*early);
	return 4;
}

static int zero_waiter(void *arg)
{
	struct sembuf two[2] = {{.sem_num = ZERO, .sem_op = 0}, {.sem_num = FREE, .sem_op = 1}};

	CHECK(!semop(id, two, 2));
	CHECK(!*early);
	return 5;
}

static int changer(void *arg)
{
	CHECK(!operate(BY_CHILD, 17, NULL));
	test_hold();
	while (semctl(id, BY_CHILD, GETVAL) == 17)
		usleep(1000);
	return 6;
}

/* A 32-bit program has one call for all of System V, but for later ones. */
#ifdef SYS_semop
#define IS_SEMOP(nr) ((nr) == SYS_semop || (nr) == SYS_semtimedop)
#else
#define IS_SEMOP(nr) ((nr) == SYS_ipc || (nr) == SYS_semtimedop_time64)
#endif

static void until_blocked(pid_t pid)
{
	char path[64], buf[256] = "";

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	for (int i = 0; i < 5000; i++, usleep(1000)) {
		test_read(path, buf, sizeof(buf));
		if (IS_SEMOP(atol(buf)) && test_state(pid) == 'S')
			return;
	}
	CHECKF(false, "task %d never waited: %s", pid, buf);
}

static void check_set(const pid_t pids[4])
{
	static const int values[COUNT] = {5, 1, 0, 2, 17};
	struct semid_ds ds;

	CHECK_EQUAL(semget(KEY, 0, 0), id);
	for (int i = 0; i < COUNT; i++)
		CHECK_EQUAL(semctl(id, i, GETVAL), values[i]);
	CHECK_EQUAL(semctl(id, FREE, GETPID), getpid());
	CHECK_EQUAL(semctl(id, BY_CHILD, GETPID), pids[3]);
	CHECK(!semctl(id, 0, IPC_STAT, &ds));
	CHECK_EQUAL(ds.sem_nsems, COUNT);
	CHECK_EQUAL(ds.sem_perm.mode & 0777, 0640);
	CHECK(ds.sem_otime != 0);
	for (int i = 0; i < 3; i++)
		until_blocked(pids[i]);
	CHECK_EQUAL(semctl(id, TAKEN, GETNCNT), 1);
	CHECK_EQUAL(semctl(id, TIMED, GETNCNT), 1);
	CHECK_EQUAL(semctl(id, ZERO, GETZCNT), 1);
}

int main(void)
{
	static const unsigned short values[3] = {7, 8, 9};
	static int (*const waiters[])(void *) = {taker, timed_taker, zero_waiter, changer};
	unsigned short now[3] = {};
	struct semid_ds ds;
	int fresh, set;
	pid_t pids[4];

	test_init();
	early = test_shared(4096);
	*early = 1;
	id = semget(KEY, COUNT, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0);
	CHECK(!operate(FREE, 5, NULL) && !operate(TAKEN, 1, NULL) && !operate(ZERO, 2, NULL));
	CHECK(!semctl(id, 0, IPC_STAT, &ds));
	ds.sem_perm.mode = 0640;
	CHECK(!semctl(id, 0, IPC_SET, &ds));
	/* Nobody has operated on these two: what initialises a set looks at the time. */
	fresh = semget(IPC_PRIVATE, 2, 0600);
	set = semget(IPC_PRIVATE, 3, 0600);
	CHECK(fresh >= 0 && set >= 0);
	CHECK(!semctl(set, 0, SETALL, values));
	for (int i = 0; i < 4; i++)
		pids[i] = test_fork(waiters[i], NULL);
	while (semctl(id, BY_CHILD, GETVAL) != 17)
		usleep(1000);
	check_set(pids);

	test_wait();
	if (test_break(1))
		semctl(id, FREE, SETVAL, 6);
	if (test_break(2))
		semctl(id, 0, IPC_RMID);
	if (test_break(3))
		operate(BY_CHILD, -1, NULL), operate(BY_CHILD, 1, NULL);
	if (test_break(4))
		semctl(fresh, 0, IPC_RMID);
	if (test_break(5))
		semctl(set, 1, SETVAL, 1);
	check_set(pids);
	CHECK(!semctl(fresh, 0, IPC_STAT, &ds));
	CHECK_EQUAL(ds.sem_nsems, 2);
	CHECK_EQUAL(ds.sem_otime, 0);
	CHECK_EQUAL(semctl(fresh, 0, GETPID), 0);
	CHECK(!semctl(set, 0, IPC_STAT, &ds));
	CHECK_EQUAL(ds.sem_otime, 0);
	CHECK(!semctl(set, 0, GETALL, now));
	CHECK(!memcmp(now, values, sizeof(now)));
	CHECK_EQUAL(semctl(set, 1, GETPID), getpid());
	*early = 0;
	CHECK(!operate(TAKEN, 1, NULL) && !operate(TIMED, 1, NULL) && !operate(ZERO, -2, NULL) &&
	      !operate(BY_CHILD, 1, NULL));
	for (int i = 0; i < 4; i++)
		test_reap(pids[i], 3 + i);
	CHECK_EQUAL(semctl(id, FREE, GETVAL), 6);
	semctl(fresh, 0, IPC_RMID);
	semctl(set, 0, IPC_RMID);
	semctl(id, 0, IPC_RMID);
	test_pass();
}
