/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings sealed with mseal: contents, and that they are sealed again. */
#include "harness.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE	 4096UL
#define NR_MSEAL 462

int main(void)
{
	char *writable, *constant;

	test_init();
	writable = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	constant = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	test_fill(writable, 4 * PAGE, 1);
	test_fill(constant, 4 * PAGE, 2);
	CHECK(!mprotect(constant, 4 * PAGE, PROT_READ));
	if (syscall(NR_MSEAL, writable, 4 * PAGE, 0) || syscall(NR_MSEAL, constant, 4 * PAGE, 0))
		test_skip("this kernel has no mseal");
	test_wait();
	if (test_break(1))
		writable[5] ^= 1;
	CHECK_FILLED(writable, 4 * PAGE, 1);
	CHECK_FILLED(constant, 4 * PAGE, 2);
	CHECK(munmap(writable, PAGE) < 0 && errno == EPERM);
	CHECK(mprotect(constant, PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EPERM);
	test_pass();
}
