/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A local descriptor table, as emulators make one; refused or restored, never lost.
 *
 * may-refuse: task-state
 */
#include "harness.h"

#include <asm/ldt.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
	struct user_desc entry = {.entry_number = 3, .limit = 0xfff, .seg_32bit = 1, .useable = 1};
	unsigned char before[64 * 8], now[64 * 8];
	unsigned int value;
	char *low;

	test_init();
	low = mmap((void *)0x200000, 4096, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(low != MAP_FAILED);
	*(unsigned int *)(low + 8) = 0x1234abcd;
	entry.base_addr = 0x200000;
	if (syscall(SYS_modify_ldt, 1, &entry, sizeof(entry)))
		test_skip("no local descriptor tables: %s", strerror(errno));
	memset(before, 0, sizeof(before));
	memset(now, 0, sizeof(now));
	CHECK(syscall(SYS_modify_ldt, 0, before, sizeof(before)) > 0);
	test_wait();
	if (test_break(1)) {
		entry.limit = 7;
		syscall(SYS_modify_ldt, 1, &entry, sizeof(entry));
	}
	CHECK(syscall(SYS_modify_ldt, 0, now, sizeof(now)) > 0);
	CHECK(!memcmp(before, now, sizeof(now)));
	asm volatile("mov %%gs, %%ecx\n"
		     "mov %1, %%gs\n"
		     "mov %%gs:8, %0\n"
		     "mov %%ecx, %%gs\n"
		     : "=&r"(value)
		     : "r"(3 << 3 | 7)
		     : "ecx");
	CHECK_EQUAL(value, 0x1234abcd);
	test_pass();
}
