/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of hugetlbfs, private and shared.
 *
 * needs: root
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE (2UL << 20)

static char *shared;

static int child(void *arg)
{
	test_hold();
	while (*(volatile char *)shared != 'p')
		usleep(1000);
	shared[1] = 'c';
	return 4;
}

int main(void)
{
	char *private, text[64];
	pid_t pid;

	test_init();
	test_read("/proc/sys/vm/nr_hugepages", text, sizeof(text));
	if (atoi(text) < 8)
		test_skip("fewer than 8 huge pages (vm.nr_hugepages)");
	private = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	shared = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (private == MAP_FAILED || shared == MAP_FAILED)
		test_skip("huge pages are taken");
	test_fill(private, HUGE, 1);
	test_fill(shared + HUGE, HUGE, 2);
	pid = test_fork(child, NULL);

	test_wait();
	if (test_break(1))
	private[HUGE - 1] ^= 1;
	CHECK_FILLED(private, HUGE, 1);
	CHECK_FILLED(shared + HUGE, HUGE, 2);
	CHECK(test_vm_flag(private, "ht") && test_vm_flag(shared, "ht"));
	CHECK_EQUAL(test_smaps(private, "KernelPageSize"), 2048);
	shared[0] = 'p';
	test_reap(pid, 4);
	CHECK_EQUAL(shared[1], 'c');
	test_pass();
}
