/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings that grow downwards, the stack among them, still do so. */
#include "harness.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGE	4096UL
#define RESERVE (8UL << 20)

static __attribute__((noinline)) long deep(int depth)
{
	volatile char frame[2048];

	frame[0] = (char)depth;
	frame[2047] = 1;
	if (!depth)
		return 0;
	return deep(depth - 1) + frame[2047] + (frame[0] != (char)depth);
}

int main(void)
{
	char *room, *stack;

	test_init();
	CHECK_EQUAL(deep(100), 100);
	/* Room below, at the end of which there is a neighbour; the guard gap is 1 MiB. */
	room = mmap(NULL, RESERVE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(room != MAP_FAILED);
	CHECK(!munmap(room, RESERVE));
	stack = mmap(room + RESERVE - 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(stack != MAP_FAILED);
	test_fill(stack, 4 * PAGE, 9);
	/* It has grown by some already. */
	for (int i = 1; i <= 16; i++)
		test_fill(stack - i * PAGE, PAGE, 100 + i);
	CHECK(test_vm_flag(stack, "gd"));

	test_wait();
	if (test_break(1))
		stack[-16 * (int)PAGE] ^= 1;
	CHECK(test_vm_flag(stack, "gd"));
	CHECK_FILLED(stack, 4 * PAGE, 9);
	for (int i = 1; i <= 16; i++)
		CHECK_FILLED(stack - i * PAGE, PAGE, 100 + i);
	for (int i = 17; i <= 200; i++)
		*(volatile char *)(stack - i * PAGE) = 1;
	CHECK_EQUAL(stack[-200 * (int)PAGE], 1);
	/* The stack: 4 MiB more. */
	CHECK_EQUAL(deep(2000), 2000);
	CHECK(test_vm_flag(__builtin_frame_address(0), "gd"));
	test_pass();
}
