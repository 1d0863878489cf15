/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protection keys: those that are allocated, those of mappings, the rights of each thread, and the
 * key that the kernel gives to what may only be executed.
 */
#include "harness.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL

static sigjmp_buf back;
static volatile int code;
static int open_key, closed_key;
static char *closed;
static volatile int settled;

static uint32_t rights(void)
{
	uint32_t value, unused;

	asm volatile("rdpkru" : "=a"(value), "=d"(unused) : "c"(0));
	return value;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	code = info->si_code;
	siglongjmp(back, 1);
}

/* How a write ends: 0, or the code of the signal. A handler has rights of its own, and keeps them
 * if it jumps. */
static int try_write(volatile char *at)
{
	uint32_t own = rights();

	code = 0;
	if (!sigsetjmp(back, 1))
		*at = 'w';
	asm volatile("wrpkru" : : "a"(own), "c"(0), "d"(0));
	return code;
}

static int key_of(const void *wanted)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	int key = -1, here = 0;
	char line[512];

	CHECK(f);
	while (key < 0 && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)wanted && end > (uintptr_t)wanted;
		else if (here)
			sscanf(line, "ProtectionKey: %d", &key);
	}
	fclose(f);
	return key;
}

static void *other_thread(void *arg)
{
	uint32_t before;

	CHECK(!pkey_set(closed_key, 0));
	CHECK(!pkey_set(open_key, PKEY_DISABLE_ACCESS));
	before = rights();
	settled = 1;
	test_hold();
	CHECK_EQUAL(rights(), before);
	CHECK_EQUAL(try_write(closed), 0);
	return NULL;
}

/* A key more than its parent has. */
static int child(void *arg)
{
	int key = pkey_alloc(0, PKEY_DISABLE_WRITE);
	char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(key > 0 && at != MAP_FAILED && !pkey_mprotect(at, PAGE, PROT_READ | PROT_WRITE, key));
	settled = 2;
	*(volatile int *)arg = 1;
	test_hold();
	CHECK_EQUAL(key_of(at), key);
	CHECK_EQUAL(key_of(closed), closed_key);
	CHECK_EQUAL(try_write(at), SEGV_PKUERR);
	CHECK(!pkey_free(key));
	CHECK_EQUAL(pkey_alloc(0, 0), key);
	return 7;
}

int main(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	int freed, kernels;
	volatile int *ready;
	char *open, *only;
	pthread_t thread;
	uint32_t before;
	pid_t pid;

	test_init();
	ready = test_shared(PAGE);
	freed = pkey_alloc(0, 0);
	if (freed < 0)
		test_skip("no protection keys: %s", strerror(errno));
	closed_key = pkey_alloc(0, PKEY_DISABLE_WRITE);
	open_key = pkey_alloc(0, 0);
	CHECK(closed_key > 0 && open_key > 0);
	sigaction(SIGSEGV, &action, NULL);
	closed = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	open = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	only = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(closed != MAP_FAILED && open != MAP_FAILED && only != MAP_FAILED);
	test_fill(closed + PAGE, PAGE, 1);
	test_fill(only, PAGE, 2);
	CHECK(!pkey_mprotect(closed, 2 * PAGE, PROT_READ | PROT_WRITE, closed_key));
	CHECK(!pkey_mprotect(open, PAGE, PROT_READ | PROT_WRITE, open_key));
	CHECK(!pkey_free(freed));
	CHECK(!mprotect(only, PAGE, PROT_EXEC));
	kernels = key_of(only);
	CHECK(kernels > 0 && kernels != closed_key && kernels != open_key);
	CHECK(!pthread_create(&thread, NULL, other_thread, NULL));
	while (!settled)
		usleep(1000);
	pid = test_fork(child, (void *)ready);
	while (!*ready)
		usleep(1000);
	before = rights();

	test_wait();
	if (test_break(1))
		pkey_set(closed_key, 0);
	if (test_break(2))
		pkey_free(open_key);
	if (test_break(3))
		pkey_mprotect(open, PAGE, PROT_READ | PROT_WRITE, closed_key);
	CHECK_EQUAL(rights(), before);
	CHECK_EQUAL(key_of(closed), closed_key);
	CHECK_EQUAL(key_of(closed + PAGE), closed_key);
	CHECK_EQUAL(key_of(closed + 2 * PAGE), 0);
	CHECK_EQUAL(key_of(open), open_key);
	CHECK_EQUAL(key_of(only), kernels);
	CHECK_FILLED(closed + PAGE, PAGE, 1);
	CHECK_EQUAL(try_write(closed), SEGV_PKUERR);
	CHECK_EQUAL(try_write(closed + 2 * PAGE), 0);
	CHECK_EQUAL(try_write(open), 0);
	CHECK(!pkey_free(open_key) && !pkey_free(closed_key));
	CHECK(pkey_free(kernels) < 0);
	/* The key of the kernel goes with the protection. */
	CHECK(!mprotect(only, PAGE, PROT_READ));
	CHECK_EQUAL(key_of(only), 0);
	CHECK_FILLED(only, PAGE, 2);
	CHECK(!pthread_join(thread, NULL));
	test_reap(pid, 7);
	test_pass();
}
