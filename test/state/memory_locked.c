/* SPDX-License-Identifier: Apache-2.0 */
/* Locked memory: mlock, mlock2 on fault, mlockall for what comes later. */
#include "harness.h"

#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL
#define MANY 4

/* MLOCK_ONFAULT: kernels that have no name for the flag (6.1) show "??". */
static bool locked_on_fault(const void *at)
{
	return test_vm_flag(at, "lf") || test_vm_flag(at, "??");
}

static int lock_all(void *arg)
{
	volatile int *ready = arg;
	char *at;

	CHECK(!mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
	__atomic_add_fetch(ready, 1, __ATOMIC_SEQ_CST);
	test_hold();
	at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(at != MAP_FAILED);
	CHECKF(test_vm_flag(at, "lo") && locked_on_fault(at), "mlockall(MCL_FUTURE) was forgotten");
	CHECK(test_vm_flag(&at, "lo"));
	return 3;
}

/* Nothing is locked yet. Of many processes the mappings are read before calls are executed in them.
 */
static int lock_future(void *arg)
{
	volatile int *ready = arg;
	char *at;

	CHECK(!mlockall(MCL_FUTURE));
	__atomic_add_fetch(ready, 1, __ATOMIC_SEQ_CST);
	test_hold();
	at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(at != MAP_FAILED);
	CHECKF(test_vm_flag(at, "lo") && !locked_on_fault(at),
	       "mlockall(MCL_FUTURE) was forgotten");
	CHECK(!test_vm_flag(&at, "lo"));
	return 4;
}

int main(void)
{
	pid_t many[MANY];
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
	for (int i = 0; i < MANY; i++)
		many[i] = test_fork(lock_future, (void *)ready);
	while (*ready < 1 + MANY)
		usleep(1000);

	test_wait();
	if (test_break(1))
		munlock(locked + 2 * PAGE, PAGE);
	for (int i = 0; i < 8; i++) {
		CHECK_EQUAL(test_vm_flag(locked + i * PAGE, "lo"), i >= 2 && i < 6);
		CHECK_EQUAL(test_populated(locked + i * PAGE), i >= 2 && i < 6);
		CHECK_EQUAL(test_populated(on_fault + i * PAGE), i == 1);
	}
	CHECK(test_vm_flag(on_fault, "lo") && locked_on_fault(on_fault));
	CHECK_FILLED(on_fault + PAGE, PAGE, 1);
	CHECK(!test_vm_flag(none, "lo"));
	CHECK_FILLED(none, PAGE, 2);
	/* The lock counts: it can be taken back. */
	CHECK(!munlock(locked, 8 * PAGE));
	test_reap(pid, 3);
	for (int i = 0; i < MANY; i++)
		test_reap(many[i], 4);
	test_pass();
}
