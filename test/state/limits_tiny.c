/* SPDX-License-Identifier: Apache-2.0 */
/* Threads with the smallest stacks, nearly used up. */
#include "harness.h"

#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STACK 32768

static volatile pid_t tid;
volatile int tiny_go;

static void *run(void *arg)
{
	char *bottom = arg;
	uint64_t is;

	tid = syscall(SYS_gettid);
	/* 64 bytes are left. */
	asm volatile("mov %%rsp, %%r15\n"
		     "lea 64(%1), %%rsp\n"
		     "1: cmpl $0, tiny_go(%%rip)\n"
		     "je 1b\n"
		     "mov %%rsp, %0\n"
		     "mov %%r15, %%rsp\n"
		     : "=&r"(is)
		     : "r"(bottom)
		     : "r15", "memory", "cc");
	CHECK_EQUAL(is, (uintptr_t)bottom + 64);
	return NULL;
}

int main(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	char *stack;

	test_init();
	stack = mmap(NULL, STACK + 2 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(stack != MAP_FAILED);
	stack += 4096;
	CHECK(!mprotect(stack, STACK, PROT_READ | PROT_WRITE));
	test_fill(stack, 4096, 3);
	pthread_attr_init(&attr);
	CHECK(!pthread_attr_setstack(&attr, stack, STACK));
	CHECK(!pthread_create(&thread, &attr, run, stack));
	while (!tid)
		usleep(1000);
	test_wait();
	if (test_break(1))
		stack[100] ^= 1;
	/* Nothing was written there. */
	CHECK_FILLED(stack, 4096, 3);
	tiny_go = 1;
	CHECK(!pthread_join(thread, NULL));
	test_pass();
}
