/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IPC namespaces below that of the root: objects with the same numbers, keys and names in each, and
 * other contents; segments, semaphores with SEM_UNDO and tasks that wait, queues of both kinds,
 * open and not; settings; a namespace that nobody is in.
 *
 * needs: root
 */
#include "harness.h"

#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEY  0x1bc0de
#define SIZE 20480
#define NAME "/reprise-test-nested"
enum { TAKEN, HELD, BY_CHILD, COUNT };

struct message {
	long type;
	char text[32];
};

/* What is made in a namespace; n makes the difference. */
struct objects {
	int n, shm, removed, loose, sem, msg;
	char *keyed, *gone;
	mqd_t queue, unlinked;
};

static volatile int *shared; /* who has come how far */
static char text[256];
static int own;

static void operate(int id, int num, int op, int flags)
{
	struct sembuf b = {
		.sem_num = (unsigned short)num, .sem_op = (short)op, .sem_flg = (short)flags};

	CHECKF(!semop(id, &b, 1), "operation %d on %d: %s", op, num, strerror(errno));
}

static mqd_t make_queue(const char *name, int priority, int n)
{
	struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 64};
	mqd_t queue = mq_open(name, O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0640, &attr);

	CHECKF(queue >= 0, "%s: %s", name, strerror(errno));
	snprintf(text, sizeof(text), "%s in %d", name, n);
	CHECK(!mq_send(queue, text, strlen(text) + 1, (unsigned int)priority));
	return queue;
}

static void check_queue(mqd_t queue, const char *name, int priority, int n)
{
	char is[64], want[300];
	unsigned int p;

	snprintf(want, sizeof(want), "%s in %d", name, n);
	CHECKF(mq_receive(queue, is, sizeof(is), &p) > 0, "%s: %s", name, strerror(errno));
	CHECKF(!strcmp(is, want) && p == (unsigned int)priority, "%s instead of %s", is, want);
	CHECK(mq_receive(queue, is, sizeof(is), &p) < 0 && errno == EAGAIN);
}

static void send_message(int id, long type, int n)
{
	struct message m = {.type = type};

	snprintf(m.text, sizeof(m.text), "message %ld in %d", type, n);
	CHECK(!msgsnd(id, &m, sizeof(m.text), IPC_NOWAIT));
}

static void check_message(int id, long type, int n)
{
	char want[32] = "";
	struct message m;

	snprintf(want, sizeof(want), "message %ld in %d", type, n);
	CHECK_EQUAL(msgrcv(id, &m, sizeof(m.text), 0, IPC_NOWAIT), sizeof(m.text));
	CHECKF(m.type == type && !strcmp(m.text, want), "%s instead of %s", m.text, want);
}

static void set_limits(int n)
{
	snprintf(text, sizeof(text), "%d", 70000 + n);
	test_write("/proc/sys/kernel/shmmax", text, strlen(text));
	snprintf(text, sizeof(text), "%d", 5000 + n);
	test_write("/proc/sys/kernel/msgmax", text, strlen(text));
	snprintf(text, sizeof(text), "%d", 30 + n);
	test_write("/proc/sys/fs/mqueue/queues_max", text, strlen(text));
}

static void check_limit(const char *name, int want)
{
	test_read(name, text, sizeof(text));
	CHECKF(atoi(text) == want, "%s is %d instead of %d", name, atoi(text), want);
}

static void check_limits(int n)
{
	check_limit("/proc/sys/kernel/shmmax", 70000 + n);
	check_limit("/proc/sys/kernel/msgmax", 5000 + n);
	check_limit("/proc/sys/fs/mqueue/queues_max", 30 + n);
}

/* Those that need nobody to be there. */
static void make_loose(struct objects *o, int n)
{
	char *at;

	o->n = n;
	set_limits(n);
	/* The number differs from those of others. */
	for (int i = 0; i < n; i++)
		CHECK(shmctl(shmget(IPC_PRIVATE, 4096, 0600), IPC_RMID, NULL) == 0);
	o->loose = shmget(KEY + 1, SIZE, IPC_CREAT | IPC_EXCL | 0640);
	at = shmat(o->loose, NULL, 0);
	CHECK(o->loose >= 0 && at != (void *)-1);
	test_fill(at, SIZE, (uint64_t)n);
	CHECK(!shmdt(at));
	o->sem = semget(KEY, COUNT, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(o->sem >= 0);
	operate(o->sem, HELD, 10 + n, 0);
	o->msg = msgget(KEY, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(o->msg >= 0);
	send_message(o->msg, 5, n);
	send_message(o->msg, 2, n);
	CHECK(!mq_close(make_queue(NAME "-closed", 3, n)));
}

static void check_loose(const struct objects *o)
{
	struct shmid_ds ds;
	mqd_t queue;
	char *at;

	check_limits(o->n);
	CHECK_EQUAL(shmget(KEY + 1, 0, 0), o->loose);
	CHECK(!shmctl(o->loose, IPC_STAT, &ds) && (ds.shm_perm.mode & 0777) == 0640);
	at = shmat(o->loose, NULL, 0);
	CHECK(at != (void *)-1);
	CHECK_FILLED(at, SIZE, (uint64_t)o->n);
	CHECK(!shmdt(at));
	CHECK_EQUAL(semget(KEY, 0, 0), o->sem);
	CHECK_EQUAL(semctl(o->sem, HELD, GETVAL), 10 + o->n);
	CHECK_EQUAL(msgget(KEY, 0), o->msg);
	check_message(o->msg, 5, o->n);
	check_message(o->msg, 2, o->n);
	queue = mq_open(NAME "-closed", O_RDWR | O_NONBLOCK);
	CHECKF(queue >= 0, "the closed queue: %s", strerror(errno));
	check_queue(queue, NAME "-closed", 3, o->n);
	CHECK(!mq_close(queue));
	CHECK(!mq_unlink(NAME "-closed"));
}

static void make_used(struct objects *o)
{
	o->shm = shmget(KEY, SIZE, IPC_CREAT | IPC_EXCL | 0600);
	o->removed = shmget(IPC_PRIVATE, SIZE, 0600);
	o->keyed = shmat(o->shm, NULL, 0);
	o->gone = shmat(o->removed, NULL, 0);
	CHECK(o->keyed != (void *)-1 && o->gone != (void *)-1);
	CHECK(!shmctl(o->removed, IPC_RMID, NULL));
	test_fill(o->keyed, SIZE, (uint64_t)o->n + 100);
	test_fill(o->gone, SIZE, (uint64_t)o->n + 200);
	o->queue = make_queue(NAME, 7, o->n);
	o->unlinked = make_queue(NAME "-unlinked", 1, o->n);
	CHECK(!mq_unlink(NAME "-unlinked"));
}

static void check_used(const struct objects *o)
{
	struct stat a, b;
	struct shmid_ds ds;
	mqd_t again;

	CHECK_EQUAL(shmget(KEY, 0, 0), o->shm);
	CHECK(!shmctl(o->shm, IPC_STAT, &ds) && ds.shm_nattch == 2);
	CHECK(!shmctl(o->removed, IPC_STAT, &ds) && ds.shm_nattch == 2);
	CHECK(ds.shm_perm.mode & SHM_DEST);
	CHECK_FILLED(o->keyed, SIZE, (uint64_t)o->n + 100);
	CHECK_FILLED(o->gone, SIZE, (uint64_t)o->n + 200);
	again = mq_open(NAME, O_RDWR | O_NONBLOCK);
	CHECK(again >= 0 && !fstat(again, &a) && !fstat(o->queue, &b));
	CHECK(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
	check_queue(o->queue, NAME, 7, o->n);
	check_queue(o->unlinked, NAME "-unlinked", 1, o->n);
	CHECK(mq_open(NAME "-unlinked", O_RDWR) < 0 && errno == ENOENT);
}

static int waiter(void *arg)
{
	const struct objects *o = arg;

	operate(o->sem, BY_CHILD, 1, SEM_UNDO);
	shared[2 * o->n] = 1;
	operate(o->sem, TAKEN, -1, 0);
	CHECK(shared[2 * o->n] == 2);
	o->keyed[0]++;
	return 5;
}

/* In a namespace of its own, with a child that waits. */
static int inside(void *arg)
{
	struct objects o = {};
	int n = (int)(intptr_t)arg;
	char first;
	pid_t pid;

	CHECK(!unshare(CLONE_NEWIPC));
	make_loose(&o, n);
	make_used(&o);
	operate(o.sem, HELD, 4, 0);
	operate(o.sem, HELD, -4, SEM_UNDO);
	pid = test_fork(waiter, &o);
	while (!shared[2 * n])
		usleep(1000);
	test_until_in(pid, SYS_semtimedop);
	shared[2 * n + 1] = 1;
	test_hold();

	if (test_break(1) && n == 1)
		o.gone[SIZE - 1]++;
	if (test_break(2) && n == 2)
		check_queue(o.queue, NAME, 7, n);
	if (test_break(3) && n == 1)
		CHECK(!shmctl(o.loose, IPC_RMID, NULL));
	if (test_break(4) && n == 2)
		set_limits(3);
	check_used(&o);
	check_loose(&o);
	CHECK_EQUAL(semctl(o.sem, HELD, GETPID), getpid());
	CHECK_EQUAL(semctl(o.sem, BY_CHILD, GETPID), pid);
	CHECK_EQUAL(semctl(o.sem, BY_CHILD, GETVAL), 1);
	shared[2 * n] = 2;
	first = o.keyed[0];
	operate(o.sem, TAKEN, 1, 0);
	test_reap(pid, 5);
	/* What was to be undone is, and what it wrote is ours. */
	CHECK_EQUAL(semctl(o.sem, BY_CHILD, GETVAL), 0);
	CHECK_EQUAL(o.keyed[0], (char)(first + 1));
	shared[20 + n] = o.sem;
	shared[30 + n] = 1;
	while (n == 1 && !shared[40])
		usleep(1000);
	return 3;
}

static void leave(void)
{
	CHECK(!setns(own, CLONE_NEWIPC));
}

/* The namespace outlives who was in it, and took something there. */
static int looker(void *arg)
{
	char path[64];
	pid_t pid = *(pid_t *)arg;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/ipc", pid);
	fd = open(path, O_RDONLY);
	CHECK(fd >= 0 && !setns(fd, CLONE_NEWIPC) && !close(fd));
	shared[40] = 1;
	while (!shared[31])
		usleep(1000);
	test_until_state(pid, 'Z');
	/* 10 + 1 were there, and 4 came back. */
	CHECK_EQUAL(semctl(shared[21], HELD, GETVAL), 15);
	return 4;
}

int main(void)
{
	struct objects held = {};
	pid_t pids[3], look;
	int fd;

	test_init();
	shared = test_shared(4096);
	own = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);
	for (int n = 1; n < 3; n++)
		pids[n] = test_fork(inside, (void *)(intptr_t)n);
	CHECK(!unshare(CLONE_NEWIPC));
	make_loose(&held, 4);
	fd = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);
	CHECK(own >= 0 && fd >= 0);
	leave();
	for (int n = 1; n < 3; n++)
		while (!shared[2 * n + 1])
			usleep(1000);
	test_wait();
	look = test_fork(looker, &pids[1]);
	CHECK(!setns(fd, CLONE_NEWIPC));
	if (test_break(5))
		CHECK(!semctl(held.sem, 0, IPC_RMID));
	check_loose(&held);
	leave();
	test_until_state(pids[1], 'Z');
	test_reap(look, 4);
	for (int n = 1; n < 3; n++)
		test_reap(pids[n], 3);
	test_pass();
}
