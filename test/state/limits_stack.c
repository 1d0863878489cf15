/* SPDX-License-Identifier: Apache-2.0 */
/* Stack pointers that are elsewhere: coroutines on small stacks of the heap, no stack at all. */
#include "harness.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

volatile int stack_go;
static volatile int spinning;

/* Coroutines on small stacks. */
#define SMALL 16384
static ucontext_t inside, outside;
static volatile int reached;

static void coroutine(int a)
{
	volatile char frame[256];

	memset((void *)frame, a, sizeof(frame));
	reached = 1;
	test_wait();
	for (int i = 0; i < 256; i++)
		CHECK_EQUAL(frame[i], 5);
	reached = 2;
}

/*
 * A stack pointer that points to nothing, to something that may only be read, or so near to the
 * beginning of a page that nothing fits below.
 */
static void *without_stack(void *arg)
{
	uint64_t pointer = (uintptr_t)arg, is;

	__sync_fetch_and_add(&spinning, 1);
	asm volatile("mov %%rsp, %%r15\n"
		     "mov %1, %%rsp\n"
		     "1: cmpl $0, stack_go(%%rip)\n"
		     "je 1b\n"
		     "mov %%rsp, %0\n"
		     "mov %%r15, %%rsp\n"
		     : "=&r"(is)
		     : "r"(pointer)
		     : "r15", "memory", "cc");
	CHECK_EQUAL(is, pointer);
	return NULL;
}

/* The same in a system call: pause() that nobody ends but the end of the process. */
static volatile pid_t waiting;

static void *waits_without_stack(void *arg)
{
	waiting = syscall(SYS_gettid);
	asm volatile("mov %0, %%rsp\n"
		     "1: mov %1, %%eax\n"
		     "syscall\n"
		     "jmp 1b\n"
		     :
		     : "r"(arg), "i"(SYS_pause)
		     : "rax", "rcx", "r11", "memory");
	return NULL;
}

int main(void)
{
	pthread_t threads[5];
	char *page, *small;

	test_init();
	page = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(!mprotect(page + 4096, 4096, PROT_READ));
	CHECK(!pthread_create(&threads[0], NULL, without_stack, (void *)0x10));
	CHECK(!pthread_create(&threads[1], NULL, without_stack, page + 6000));
	CHECK(!pthread_create(&threads[2], NULL, without_stack, (void *)-8L));
	CHECK(!pthread_create(&threads[3], NULL, waits_without_stack, page));
	while (spinning < 3 || !waiting)
		usleep(1000);
	test_until_in(waiting, SYS_pause);
	small = malloc(SMALL);
	CHECK(!getcontext(&inside));
	inside.uc_stack.ss_sp = small;
	inside.uc_stack.ss_size = SMALL;
	inside.uc_link = &outside;
	makecontext(&inside, (void (*)(void))coroutine, 1, 5 + test_break(1));
	CHECK(!swapcontext(&outside, &inside));
	CHECK_EQUAL(reached, 2);
	stack_go = 1;
	for (int i = 0; i < 3; i++)
		CHECK(!pthread_join(threads[i], NULL));
	test_pass();
}
