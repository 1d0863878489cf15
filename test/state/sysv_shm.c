/* SPDX-License-Identifier: Apache-2.0 */
/* System V segments that are not attached, locked ones, and such of huge pages. */
#include "harness.h"

#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#define KEY  0x5e6
#define SIZE (5 * 4096UL + 100)
#define HUGE (2UL << 20)

static int make(key_t key, size_t size, int flags, uint64_t seed)
{
	int id = shmget(key, size, IPC_CREAT | IPC_EXCL | flags);
	char *at;

	if (id < 0 && (flags & SHM_HUGETLB))
		return id; /* there are none */
	CHECK(id >= 0);
	at = shmat(id, NULL, 0);
	CHECK(at != (void *)-1);
	test_fill(at, 4096, seed);
	test_fill(at + 3 * 4096, size - 3 * 4096, seed + 1);
	CHECK(!shmdt(at));
	return id;
}

/* The second and third page were never written. */
static void check(int id, size_t size, unsigned int mode, uint64_t seed)
{
	struct shmid_ds ds;
	char *at;

	CHECK(!shmctl(id, IPC_STAT, &ds));
	CHECK_EQUAL(ds.shm_nattch, 0);
	CHECK_EQUAL(ds.shm_segsz, size);
	CHECK_EQUAL(ds.shm_perm.mode, mode);
	CHECK_EQUAL(ds.shm_perm.cuid, geteuid());
	at = shmat(id, NULL, 0);
	CHECK(at != (void *)-1);
	CHECK_FILLED(at, 4096, seed);
	for (int i = 4096; i < 3 * 4096; i++)
		CHECK(!at[i]);
	CHECK_FILLED(at + 3 * 4096, size - 3 * 4096, seed + 1);
	CHECK(!shmdt(at));
}

int main(void)
{
	int keyed, private, locked, huge, huge_there;
	char *at;

	test_init();
	keyed = make(KEY, SIZE, 0606, 1);
	private = make(IPC_PRIVATE, SIZE, 0600, 3);
	locked = make(IPC_PRIVATE, SIZE, 0640, 5);
	huge = make(IPC_PRIVATE, HUGE, SHM_HUGETLB | 0600, 7);
	huge_there = huge >= 0;
	CHECK(!shmctl(locked, SHM_LOCK, NULL));

	test_wait();
	if (test_break(1))
		shmctl(keyed, IPC_RMID, NULL);
	if (test_break(2)) {
		at = shmat(private, NULL, 0);
		at[5000] = 1;
		shmdt(at);
	}
	if (test_break(3))
		shmctl(locked, SHM_UNLOCK, NULL);
	CHECK_EQUAL(shmget(KEY, 0, 0), keyed);
	check(keyed, SIZE, 0606, 1);
	check(private, SIZE, 0600, 3);
	check(locked, SIZE, 0640 | SHM_LOCKED, 5);
	if (huge_there) {
		check(huge, HUGE, 0600, 7);
		at = shmat(huge, NULL, 0);
		CHECK_EQUAL(test_smaps(at, "KernelPageSize"), HUGE >> 10);
		CHECK(!shmdt(at));
		shmctl(huge, IPC_RMID, NULL);
	}
	shmctl(keyed, IPC_RMID, NULL);
	shmctl(private, IPC_RMID, NULL);
	shmctl(locked, IPC_RMID, NULL);
	test_pass();
}
