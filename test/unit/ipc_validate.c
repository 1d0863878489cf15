/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "fs.pb-c.h"
#include "fs/inode.h"
#include "ipc/limits.h"
#include "ipc/sysv.h"
#include "unit.h"

/* The records of an image with one object of each kind. Stands in for the reader. */
enum { INODE_ID = 5, QUEUE_ID = 6 };

static struct image {
	Reprise__IpcPerm perm[3];
	Reprise__SemSet set;
	uint32_t values[2];
	int32_t pids[2];
	Reprise__SemUndo undo;
	Reprise__SemAdjust adjust, *adjusts[1];
	int32_t amounts[2];
	Reprise__MsgQueue queue;
	Reprise__Msg message, *messages[1];
	Reprise__ShmSegment segment;
	Reprise__Inode inode;
	Reprise__Mqueue mqueue;
	Reprise__MqueueMessage note, *notes[1];
	Reprise__MqueueNotify notify;
	Reprise__IpcLimits limits;
	Reprise__IpcLimit limit, *all[1];
	Reprise__File file;
	Reprise__MqueueFile mqueue_file;
	uint8_t data[32];
	char name[300], value[16];
} image;

const void *restart_nth(const struct restart *r, enum record_type type, size_t i, uint64_t *ret_id)
{
	if (i > 0)
		return NULL;
	switch ((int)type) {
	case RECORD_SEM_SET:
		return &image.set;
	case RECORD_SEM_UNDO:
		return &image.undo;
	case RECORD_MSG_QUEUE:
		return &image.queue;
	case RECORD_SHM_SEGMENT:
		return &image.segment;
	case RECORD_IPC_LIMITS:
		return &image.limits;
	case RECORD_MQUEUE:
		return &image.mqueue;
	default:
		return NULL;
	}
}

const void *restart_find(const struct restart *r, enum record_type type, uint64_t id)
{
	if (type == RECORD_INODE && id == INODE_ID)
		return &image.inode;
	return type == RECORD_MQUEUE && id == QUEUE_ID ? &image.mqueue : NULL;
}

void restart_trace(struct restart *r, const char *fmt, ...)
{
}

struct restart_task *restart_task_by_vtid(struct restart *r, pid_t vtid)
{
	return NULL;
}

pid_t restart_real_pid(struct restart *r, pid_t vpid)
{
	return 0;
}

static void set_perms(void)
{
	for (int i = 0; i < 3; i++) {
		reprise__ipc_perm__init(&image.perm[i]);
		image.perm[i].id = 10 + i;
		image.perm[i].mode = 0600;
		image.perm[i].relation = IPC_OWN;
	}
}

static void set_system_v(void)
{
	reprise__sem_set__init(&image.set);
	image.set.perm = &image.perm[SYSV_SEM];
	image.set.nsems = 2;
	image.set.values = image.values;
	image.set.pids = image.pids;
	image.set.n_values = image.set.n_pids = 2;
	reprise__sem_undo__init(&image.undo);
	reprise__sem_adjust__init(&image.adjust);
	image.adjusts[0] = &image.adjust;
	image.undo.sets = image.adjusts;
	image.undo.n_sets = 1;
	image.adjust.semid = 10;
	image.adjust.adjust = image.amounts;
	image.adjust.n_adjust = 2;
	reprise__msg_queue__init(&image.queue);
	reprise__msg__init(&image.message);
	image.messages[0] = &image.message;
	image.queue.perm = &image.perm[SYSV_MSG];
	image.queue.messages = image.messages;
	image.queue.n_messages = 1;
	image.message.type = 1;
	reprise__shm_segment__init(&image.segment);
	reprise__inode__init(&image.inode);
	image.segment.perm = &image.perm[SYSV_SHM];
	image.segment.inode = INODE_ID;
	image.inode.kind = INODE_SYSV_SHM;
	image.inode.shmid = 12;
}

static void set_mqueue(void)
{
	reprise__file__init(&image.file);
	reprise__mqueue_file__init(&image.mqueue_file);
	image.file.mqueue = &image.mqueue_file;
	image.mqueue_file.queue = QUEUE_ID;
	reprise__mqueue__init(&image.mqueue);
	reprise__mqueue_message__init(&image.note);
	reprise__mqueue_notify__init(&image.notify);
	image.notes[0] = &image.note;
	strcpy(image.name, "queue");
	image.mqueue.name = image.name;
	image.mqueue.mode = 0600;
	image.mqueue.maxmsg = 1;
	image.mqueue.msgsize = 32;
	image.mqueue.messages = image.notes;
	image.mqueue.n_messages = 1;
	image.mqueue.notify = &image.notify;
	image.note.data.data = image.data;
	image.note.data.len = 32;
	image.notify.notify = SIGEV_SIGNAL;
	image.notify.signo = 10;
	reprise__ipc_limits__init(&image.limits);
	reprise__ipc_limit__init(&image.limit);
	image.all[0] = &image.limit;
	image.limits.limits = image.all;
	image.limits.n_limits = 1;
	image.limit.name = (char *)(uintptr_t) "kernel/sem";
	strcpy(image.value, "1\t2\t3\t4\n");
	image.limit.value = image.value;
}

static int good(void **state)
{
	memset(&image, 0, sizeof(image));
	set_perms();
	set_system_v();
	set_mqueue();
	return 0;
}

static int check(void)
{
	struct restart r = {};
	struct error e = {};
	int res = sem_validate(&r, &e);

	if (res >= 0)
		res = undo_validate(&r, &e);
	if (res >= 0)
		res = msg_validate(&r, &e);
	if (res >= 0)
		res = shm_validate(&r, &e);
	if (res >= 0)
		res = limits_validate(&r, &e);
	if (res >= 0)
		res = mqueues_validate(&r, &e);
	if (res >= 0)
		res = mqueue_validate(&r, &image.file, &e);
	assert_true(res < 0 || !e.text[0]);
	return res;
}

/* Alone, and then all is well again. */
#define BAD(what)                                    \
	do {                                         \
		good(NULL);                          \
		what;                                \
		assert_int_equal(check(), -EBADMSG); \
		good(NULL);                          \
	} while (0)

static void test_good(void **state)
{
	assert_int_equal(check(), 0);
	image.set.perm->relation = IPC_OUTSIDE_TOO;
	image.set.n_values = image.set.n_pids = 0;
	image.segment.inode = 0;
	image.mqueue.notify = NULL;
	assert_int_equal(check(), 0);
}

static void test_perm(void **state)
{
	BAD(image.set.perm = NULL);
	BAD(image.queue.perm = NULL);
	BAD(image.segment.perm = NULL);
	BAD(image.perm[0].id = -1);
	BAD(image.perm[1].mode = 010600);
	BAD(image.perm[2].relation = IPC_NOT_OURS);
	BAD(image.perm[0].relation = 4);
}

static void test_semaphores(void **state)
{
	BAD(image.set.nsems = 0);
	BAD(image.set.nsems = 3);
	BAD(image.set.nsems = image.set.n_values = image.set.n_pids = 1 << 20);
	BAD(image.set.n_pids = 1);
	BAD(image.values[1] = 32768);
	BAD(image.perm[0].relation = IPC_OUTSIDE_TOO);
	BAD(image.adjust.semid = 11);
	BAD(image.adjust.n_adjust = 1);
	BAD(image.amounts[0] = 40000);
	BAD(image.amounts[0] = -40000);
	BAD(image.perm[0].relation = IPC_PERHAPS);
}

static void test_others(void **state)
{
	BAD(image.message.type = 0);
	BAD(image.message.data.len = 1 << 25);
	BAD(image.segment.inode = 99);
	BAD(image.inode.kind = INODE_MEMFD);
	BAD(image.inode.shmid = 13);
	BAD(image.limit.name = (char *)(uintptr_t) "kernel/core_pattern");
	BAD(image.limit.name = (char *)(uintptr_t) "../../etc/passwd");
	BAD(strcpy(image.value, "1;2"));
}

static void test_mqueue(void **state)
{
	BAD(image.file.mqueue = NULL);
	BAD(image.mqueue_file.queue = 99);
	BAD(strcpy(image.name, ""));
	BAD(strcpy(image.name, ".."));
	BAD(strcpy(image.name, "a/b"));
	BAD(memset(image.name, 'x', 256));
	BAD(image.mqueue.mode = 0100600);
	BAD(image.mqueue.namespace_ = 99);
	BAD(image.mqueue.maxmsg = 0);
	BAD(image.mqueue.maxmsg = 1 << 17);
	BAD(image.mqueue.msgsize = 0);
	BAD(image.mqueue.msgsize = 1ULL << 40);
	BAD(image.mqueue.msgsize = 31);
	BAD(image.mqueue.n_messages = 2);
	BAD(image.note.priority = 32768);
	BAD(image.notify.notify = 7);
	BAD(image.notify.signo = 65);
	BAD(image.notify.signo = -1);
	BAD(image.notify.notify = SIGEV_THREAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_good, good),
		cmocka_unit_test_setup(test_perm, good),
		cmocka_unit_test_setup(test_semaphores, good),
		cmocka_unit_test_setup(test_others, good),
		cmocka_unit_test_setup(test_mqueue, good),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
