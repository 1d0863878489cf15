/* SPDX-License-Identifier: Apache-2.0 */
/* System V shared memory that is attached, also when it has been removed. */
#include "harness.h"

#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>

#define SIZE 100000UL

static char *kept, *removed, *twice;

static int child(void *arg)
{
	volatile char *at = removed;

	test_hold();
	while (at[0] != 'p')
		usleep(1000);
	kept[1] = 'c';
	at[1] = 'c';
	return 5;
}

int main(void)
{
	int id, gone, pid;
	struct shmid_ds info;
	const char *read_only;

	test_init();
	id = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0640);
	gone = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);
	CHECK(id >= 0 && gone >= 0);
	kept = shmat(id, NULL, 0);
	twice = shmat(id, NULL, 0);
	read_only = shmat(id, NULL, SHM_RDONLY);
	removed = shmat(gone, NULL, 0);
	CHECK(kept != (void *)-1 && twice != (void *)-1 && read_only != (void *)-1 &&
	      removed != (void *)-1);
	CHECK(!shmctl(gone, IPC_RMID, NULL));
	test_fill(kept, SIZE, 1);
	test_fill(removed, SIZE, 2);
	pid = test_fork(child, NULL);

	test_wait();
	if (test_break(1))
		shmdt(twice);
	CHECK_FILLED_FROM(kept, 8, SIZE, 1);
	CHECK_FILLED_FROM(removed, 8, SIZE, 2);
	removed[0] = 'p';
	test_reap(pid, 5);
	CHECK_EQUAL(removed[1], 'c');
	CHECK_EQUAL(twice[1], 'c');
	CHECK_EQUAL(read_only[1], 'c');
	/* A copy beside the original has an IPC namespace of its own. */
	CHECK(!shmctl(id, IPC_STAT, &info));
	CHECK_EQUAL(info.shm_nattch, 3);
	CHECK_EQUAL(info.shm_segsz, SIZE);
	CHECK_EQUAL(info.shm_perm.mode & 0777, 0640);
	CHECK(!shmdt(kept));
	CHECK(!shmdt(removed));
	shmctl(id, IPC_RMID, NULL);
	test_pass();
}
