/* SPDX-License-Identifier: Apache-2.0 */
/* Locked memory: mlock, mlock2 on fault, mlockall for what comes later. */
#include "harness.h"

#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL

static int lock_all(void *arg)
{
	volatile int *ready = arg;
	char *at;

	CHECK(!mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
	*ready = 1;
	test_hold();
	at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(at != MAP_FAILED);
	CHECKF(test_vm_flag(at, "lo") && test_vm_flag(at, "lf"),
	       "mlockall(MCL_FUTURE) was forgotten");
	CHECK(test_vm_flag(&at, "lo"));
	return 3;
}

int main(void)
{
	char *locked, *on_fault, *none;
	volatile int *ready;
	pid_t pid;

	test_init();
	ready = test_shared(PAGE);
	pid = test_fork(lock_all, (void *)ready);
	locked = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	on_fault = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	none = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(!mlock(locked + 2 * PAGE, 4 * PAGE));
	CHECK(!mlock2(on_fault, 8 * PAGE, MLOCK_ONFAULT));
	test_fill(on_fault + PAGE, PAGE, 1);
	test_fill(none, PAGE, 2);
	while (!*ready)
		usleep(1000);

	test_wait();
	if (test_break(1))
		munlock(locked + 2 * PAGE, PAGE);
	for (int i = 0; i < 8; i++) {
		CHECK_EQUAL(test_vm_flag(locked + i * PAGE, "lo"), i >= 2 && i < 6);
		CHECK_EQUAL(test_populated(locked + i * PAGE), i >= 2 && i < 6);
		CHECK_EQUAL(test_populated(on_fault + i * PAGE), i == 1);
	}
	CHECK(test_vm_flag(on_fault, "lo") && test_vm_flag(on_fault, "lf"));
	CHECK_FILLED(on_fault + PAGE, PAGE, 1);
	CHECK(!test_vm_flag(none, "lo"));
	CHECK_FILLED(none, PAGE, 2);
	/* The lock counts: it can be taken back. */
	CHECK(!munlock(locked, 8 * PAGE));
	test_reap(pid, 3);
	test_pass();
}
