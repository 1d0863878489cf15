/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that may still be on its way (mode lazy) while the program forks, unmaps, moves, gives up
 * and protects it, executes another program, and reads it in any order with several threads; and
 * while relatives read and write it from outside.
 */
#include "harness.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#define PAGE	4096UL
#define PART	(2UL << 20)
#define PAGES	(PART / PAGE)
#define THREADS 3

static char *part(unsigned int seed)
{
	char *at = mmap(NULL, PART, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	CHECK(!madvise(at, PART, MADV_NOHUGEPAGE));
	test_fill(at, PART, seed);
	return at;
}

static void check_zero(const char *at, size_t size)
{
	for (size_t i = 0; i < size; i++)
		CHECKF(!at[i], "not empty at offset %zu", i);
}

/* All pages of some parts, in an order that jumps about. */
struct reading {
	char **parts;
	unsigned int n, start, step;
};

static void *read_pages(void *arg)
{
	const struct reading *r = arg;
	char whole[PAGE];

	for (size_t i = 0, at = r->start; i < r->n * PAGES; i++) {
		char *p = r->parts[at / PAGES];
		size_t page = at % PAGES;

		/* the contents depend on the offset: compare with those of a whole part */
		memcpy(whole, p + page * PAGE, PAGE);
		CHECKF(*(uint64_t *)whole != 0, "part %zu, page %zu is empty", at / PAGES, page);
		at = (at + r->step) % (r->n * PAGES);
	}
	return NULL;
}

static void dont_need(char *at)
{
	CHECK(!madvise(at + PART / 2, PART / 2, MADV_DONTNEED));
	check_zero(at + PART / 2, PART / 2);
	CHECK_FILLED(at, PART / 2, 11);
}

static void unmap(char *at)
{
	const size_t hole = PART / 4;
	char *new;

	CHECK(!munmap(at + hole, hole));
	new = mmap(at + hole, hole, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(new == at + hole);
	check_zero(new, hole);
	CHECK(mmap(at + 2 * hole, PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at + 2 * hole);
	check_zero(at + 2 * hole, PAGE);
	CHECK_FILLED(at, hole, 12);
	CHECKF(test_differs(at, 2 * hole + PAGE, PART, 12) < 0, "behind what was unmapped");
}

static void move(char *at)
{
	char *to = mmap(NULL, 4 * PART, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *back;

	CHECK(to != MAP_FAILED);
	CHECK(at[5 * PAGE] || true);
	CHECK(mremap(at, PART, 2 * PART, MREMAP_MAYMOVE | MREMAP_FIXED, to + PART) == to + PART);
	CHECKF(test_differs(to + PART, PART / 2, PART, 13) < 0, "the half that moved");
	check_zero(to + 2 * PART, PART);
	/* what stands there now is something else */
	back = mmap(at, PART, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(back == at);
	check_zero(back, PART);
	CHECK_FILLED(to + PART, PART, 13);
	CHECK(mremap(to + PART, 2 * PART, PART / 2, 0) == to + PART);
	CHECK_FILLED(to + PART, PART / 2, 13);
}

static int grandchild(void *arg)
{
	CHECKF(test_differs(arg, PART / 4, PART, 14) < 0, "in a grandchild");
	return 7;
}

static int child(void *arg)
{
	char *at = arg;

	CHECK_FILLED(at, PART / 4, 14);
	test_reap(test_fork(grandchild, at), 7);
	memset(at, 0, PART / 2);
	CHECKF(test_differs(at, PART / 2, PART, 14) < 0, "in a child");
	return 6;
}

static int give_up(void *arg)
{
	CHECK(!munmap(arg, PART));
	return 5;
}

static int execute(void *arg)
{
	(void)arg;

	execl("/bin/sh", "sh", "-c", "exit 4", NULL);
	return 1;
}

static void forks(char *at)
{
	pid_t one = test_fork(child, at), two = test_fork(give_up, at), three;

	/* what they have is not what becomes of it here */
	for (size_t i = 0; i < PART; i += 3 * PAGE)
		at[i] ^= 1;
	three = test_fork(execute, at);
	test_reap(two, 5);
	test_reap(three, 4);
	test_reap(one, 6);
	for (size_t i = 0; i < PART; i += 3 * PAGE)
		at[i] ^= 1;
	CHECK_FILLED(at, PART, 14);
}

/* The kernel itself reads and writes what may not be there. */
static void by_kernel(char *at)
{
	char buf[PAGE];
	int p[2];

	CHECK(!pipe(p));
	CHECK_EQUAL(write(p[1], at + 3 * PAGE, PAGE), PAGE);
	CHECK_EQUAL(read(p[0], buf, PAGE), PAGE);
	CHECK(!memcmp(buf, at + 3 * PAGE, PAGE));
	CHECK_EQUAL(write(p[1], "0123456789", 10), 10);
	CHECK_EQUAL(read(p[0], at + 7 * PAGE + 100, 10), 10);
	CHECK(!memcmp(at + 7 * PAGE + 100, "0123456789", 10));
	CHECK_FILLED(at, 7 * PAGE + 100, 15);
	CHECKF(test_differs(at, 7 * PAGE + 112, PART, 15) < 0, "behind what was read");
	close(p[0]);
	close(p[1]);
}

static void divided(char *at)
{
	CHECK(!mprotect(at + 5 * PAGE, 3 * PAGE, PROT_READ));
	CHECK(!mprotect(at + 77 * PAGE, PAGE, PROT_NONE));
	CHECK(!mprotect(at + 77 * PAGE, PAGE, PROT_READ | PROT_WRITE));
	CHECK(!madvise(at + 100 * PAGE, 50 * PAGE, MADV_DONTFORK));
	CHECK_FILLED(at, PART, 16);
}

/* The pages go, the mapping stays: nothing may come late to where they were. */
static void leave(char *at)
{
	char *to = mmap(NULL, PART, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(to != MAP_FAILED);
	CHECK(mremap(at, PART, PART, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) == to);
	check_zero(at, PART);
	CHECK_FILLED(to, PART, 17);
	check_zero(at, PART);
}

static int into_relative(void *arg)
{
	char *at = ((char **)arg)[0], *page = ((char **)arg)[1];
	struct iovec here = {page, PAGE}, there = {at + 9 * PAGE, PAGE};
	pid_t parent = getppid();

	CHECK_EQUAL(process_vm_readv(parent, &here, 1, &there, 1, 0), PAGE);
	for (size_t i = 0; i < PAGE; i++)
		page[i] ^= 0x55;
	there.iov_base = at + 11 * PAGE;
	CHECK_EQUAL(process_vm_writev(parent, &here, 1, &there, 1, 0), PAGE);
	return 3;
}

/* By others: a relative that reads and writes from outside, and one in vfork() that shares it. */
static void by_others(char *at)
{
	static char page[PAGE];
	char *args[] = {at, page};
	pid_t pid;

	test_reap(test_fork(into_relative, args), 3);
	for (size_t i = 0; i < PAGE; i++)
		CHECKF(at[11 * PAGE + i] == (char)(at[9 * PAGE + i] ^ 0x55), "byte %zu", i);
	pid = vfork();
	if (pid == 0) {
		at[13 * PAGE + 5] ^= 1;
		_exit(2);
	}
	test_reap(pid, 2);
	at[13 * PAGE + 5] ^= 1;
	CHECK_FILLED(at, 11 * PAGE, 18);
	CHECKF(test_differs(at, 12 * PAGE, PART, 18) < 0, "beside what others wrote");
}

/* What is given up lazily and written again is there; what is locked is all there. */
static void kept(char *at)
{
	CHECK(!madvise(at + 40 * PAGE, 20 * PAGE, MADV_FREE));
	memset(at + 40 * PAGE, 'f', 20 * PAGE);
	mlock(at + 90 * PAGE, 8 * PAGE);
	CHECK_FILLED(at, 40 * PAGE, 19);
	CHECKF(test_differs(at, 60 * PAGE, PART, 19) < 0, "behind what was given up");
	for (size_t i = 40 * PAGE; i < 60 * PAGE; i++)
		CHECKF(at[i] == 'f', "what was written again, offset %zu", i);
}

int main(void)
{
	pthread_t threads[THREADS];
	struct reading readings[THREADS];
	char *read[2], *parts[9];

	test_init();
	for (unsigned int i = 0; i < 2; i++)
		read[i] = part(1 + i);
	for (unsigned int i = 0; i < 9; i++)
		parts[i] = part(11 + i);

	test_wait();
	if (test_break(1))
		read[1][PART - 5] ^= 1;
	if (test_break(2))
		parts[3][PART / 2 + 7] ^= 1;
	if (test_break(3))
		memset(read[0] + 9 * PAGE, 0, PAGE);
	if (test_break(4))
		parts[6][PART - 9] ^= 1;
	if (test_break(5))
		parts[7][20 * PAGE] ^= 1;
	if (test_break(6))
		parts[8][70 * PAGE] ^= 1;
	for (unsigned int i = 0; i < THREADS; i++) {
		readings[i] = (struct reading){read, 2, i * 311, 37 + 2 * i};
		CHECK(!pthread_create(&threads[i], NULL, read_pages, &readings[i]));
	}
	/* what takes longest at the end: nothing is missing by then */
	dont_need(parts[0]);
	unmap(parts[1]);
	leave(parts[6]);
	move(parts[2]);
	forks(parts[3]);
	by_others(parts[7]);
	by_kernel(parts[4]);
	kept(parts[8]);
	divided(parts[5]);
	for (unsigned int i = 0; i < THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	for (unsigned int i = 0; i < 2; i++)
		CHECK_FILLED(read[i], PART, 1 + i);
	test_pass();
}
