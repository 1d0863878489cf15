/* SPDX-License-Identifier: Apache-2.0 */
/* System V message queues: messages of several types in their order, who used them last, limits,
 * tasks that wait to receive and to send. */
#include "harness.h"

#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __i386__ /* the C library has one call for all of System V */
#undef SYS_msgrcv
#undef SYS_msgsnd
#define SYS_msgrcv SYS_ipc
#define SYS_msgsnd SYS_ipc
#endif

#define KEY 0xfeed
#define BIG 7000

struct text {
	long type;
	char data[8192];
};

static int id, full, empty;
static volatile int *early;

static void send(int queue, long type, const char *data, size_t len)
{
	struct text m = {.type = type};

	memcpy(m.data, data, len);
	CHECK(!msgsnd(queue, &m, len, IPC_NOWAIT));
}

static void expect(int queue, long wanted, long type, const char *data, size_t len)
{
	struct text m = {};
	ssize_t n = msgrcv(queue, &m, sizeof(m.data), wanted, IPC_NOWAIT);

	CHECKF(n == (ssize_t)len, "%zd bytes instead of %zu: %s", n, len, strerror(errno));
	CHECK_EQUAL(m.type, type);
	CHECK(!memcmp(m.data, data, len));
}

/* For a type that is not there. */
static int receiver(void *arg)
{
	struct text m = {};

	CHECK_EQUAL(msgrcv(id, &m, sizeof(m.data), 99, 0), 4);
	CHECK(!*early && !memcmp(m.data, "late", 4));
	return 3;
}

static int sender(void *arg)
{
	struct text m = {.type = 5, .data = "more"};

	CHECK(!msgsnd(full, &m, 4, 0));
	CHECK(!*early);
	return 4;
}

static int last_user(void *arg)
{
	send(empty, 1, "x", 1);
	expect(empty, 0, 1, "x", 1);
	test_hold();
	while (*early)
		usleep(1000);
	return 5;
}

int main(void)
{
	static char big[BIG];
	struct msqid_ds ds;
	pid_t pids[3];

	test_init();
	early = test_shared(4096);
	*early = 1;
	test_fill(big, sizeof(big), 1);
	id = msgget(KEY, IPC_CREAT | IPC_EXCL | 0620);
	full = msgget(IPC_PRIVATE, 0600);
	empty = msgget(IPC_PRIVATE, 0600);
	CHECK(id >= 0 && full >= 0 && empty >= 0);
	send(id, 7, "seven", 5);
	send(id, 3, big, sizeof(big));
	send(id, 1, "", 0);
	send(id, 7, "again", 5);
	/* It holds more than it is allowed to by now. */
	send(full, 5, "some text", 9);
	CHECK(!msgctl(full, IPC_STAT, &ds));
	ds.msg_qbytes = 8;
	CHECK(!msgctl(full, IPC_SET, &ds));
	pids[0] = test_fork(receiver, NULL);
	pids[1] = test_fork(sender, NULL);
	pids[2] = test_fork(last_user, NULL);
	test_until_in(pids[0], SYS_msgrcv);
	test_until_in(pids[1], SYS_msgsnd);
	do
		CHECK(!msgctl(empty, IPC_STAT, &ds));
	while (!ds.msg_lrpid);

	test_wait();
	if (test_break(1))
		send(id, 2, "surplus", 7);
	if (test_break(2))
		expect(full, 0, 5, "some text", 9);
	if (test_break(3))
		expect(id, 7, 7, "seven", 5), send(id, 7, "seven", 5);
	if (test_break(4))
		send(empty, 1, "y", 1);
	CHECK_EQUAL(msgget(KEY, 0), id);
	CHECK(!msgctl(id, IPC_STAT, &ds));
	CHECK_EQUAL(ds.msg_qnum, 4);
	CHECK_EQUAL(ds.msg_perm.mode & 0777, 0620);
	CHECK_EQUAL(ds.msg_lspid, getpid());
	CHECK_EQUAL(ds.msg_lrpid, 0);
	CHECK_EQUAL(ds.msg_rtime, 0);
	CHECK(!msgctl(full, IPC_STAT, &ds));
	CHECK_EQUAL(ds.msg_qbytes, 8);
	CHECK_EQUAL(ds.msg_qnum, 1);
	CHECK(!msgctl(empty, IPC_STAT, &ds));
	CHECK_EQUAL(ds.msg_qnum, 0);
	CHECK_EQUAL(ds.msg_lspid, pids[2]);
	CHECK_EQUAL(ds.msg_lrpid, pids[2]);
	CHECK(ds.msg_stime && ds.msg_rtime);
	test_until_in(pids[0], SYS_msgrcv);
	test_until_in(pids[1], SYS_msgsnd);
	/* The first of the least type, then in order. */
	expect(id, -6, 1, "", 0);
	expect(id, 0, 7, "seven", 5);
	expect(id, 3, 3, big, sizeof(big));
	expect(id, 0, 7, "again", 5);
	*early = 0;
	send(id, 99, "late", 4);
	test_reap(pids[0], 3);
	expect(full, 0, 5, "some text", 9);
	test_reap(pids[1], 4);
	expect(full, 0, 5, "more", 4);
	test_reap(pids[2], 5);
	msgctl(id, IPC_RMID, NULL);
	msgctl(full, IPC_RMID, NULL);
	msgctl(empty, IPC_RMID, NULL);
	test_pass();
}
