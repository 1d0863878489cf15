/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that changes in steps, by a known number of pages and by mappings that come, go and move:
 * what an image of a later step has in common with one of an earlier step.
 */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL

/* A page holds a number in several places; `now` tells which. */
struct area {
	char *at;
	size_t pages, each; /* pages that a step writes */
	uint32_t now[2048];
};

static struct area large = {.pages = 2048, .each = 20}, file = {.pages = 256, .each = 3},
		   anonymous = {.pages = 128, .each = 2}, moving = {.pages = 64, .each = 1},
		   passing = {.pages = 64};

/* Shared with the child, which goes the same steps with its own copy of what is private. */
static struct shared {
	volatile int wanted, done;
} * shared;

static int step;
static volatile sig_atomic_t told;

static void on_signal(int sig)
{
	told++;
}

static void page_write(struct area *a, size_t i, uint32_t value)
{
	uint32_t *page = (uint32_t *)(a->at + i * PAGE);

	for (size_t w = 0; w < PAGE / sizeof(*page); w += 128)
		page[w] = value + (uint32_t)i;
	a->now[i] = value;
}

static void area_check(const struct area *a, const char *what)
{
	for (size_t i = 0; a->at && i < a->pages; i++) {
		const uint32_t *page = (const uint32_t *)(a->at + i * PAGE);
		uint32_t expected = a->now[i] ? a->now[i] + (uint32_t)i : 0;

		for (size_t w = 0; w < PAGE / sizeof(*page); w += 128)
			CHECKF(page[w] == expected, "%s, page %zu, word %zu: %#x instead of %#x",
			       what, i, w, page[w], expected);
	}
}

static void area_step(struct area *a, uint32_t tag)
{
	for (size_t k = 0; k < a->each; k++)
		page_write(a, ((size_t)step * 37 + k * 101) % a->pages, tag + (uint32_t)step * 256);
}

static void area_make(struct area *a, int flags, int fd, uint32_t tag)
{
	a->at = mmap(NULL, a->pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	CHECK(a->at != MAP_FAILED);
	madvise(a->at, a->pages * PAGE, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < a->pages; i++)
		page_write(a, i, tag);
}

/* Every few steps, what happens to mappings. */
static void change_mappings(void)
{
	char *to;

	switch (step % 5) {
	case 1:
		memset(passing.now, 0, sizeof(passing.now));
		area_make(&passing, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0x500000u + (uint32_t)step);
		break;
	case 2:
		to = mmap(NULL, moving.pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(to != MAP_FAILED);
		moving.at = mremap(moving.at, moving.pages * PAGE, moving.pages * PAGE,
				   MREMAP_MAYMOVE | MREMAP_FIXED, to);
		CHECK(moving.at == to);
		break;
	case 3:
		CHECK(madvise(moving.at, 8 * PAGE, MADV_DONTNEED) == 0);
		memset(moving.now, 0, 8 * sizeof(*moving.now));
		break;
	case 4:
		CHECK(munmap(passing.at, passing.pages * PAGE) == 0);
		passing.at = NULL;
		break;
	}
}

static void go_step(bool child)
{
	step++;
	area_step(&large, child ? 0x200000 : 0x100000);
	area_step(&moving, 0x300000);
	change_mappings();
	if (child)
		return;
	area_step(&file, 0x600000);
	area_step(&anonymous, 0x700000);
}

static void check_all(void)
{
	area_check(&large, "private memory");
	area_check(&moving, "memory that moves");
	area_check(&passing, "memory that comes and goes");
}

static int child_main(void *arg)
{
	while (!test_going() || step < shared->wanted) {
		if (step < shared->wanted) {
			go_step(true);
			shared->done = step;
		}
		usleep(1000);
	}
	check_all();
	return 0;
}

int main(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	char name[32], expected[32] = "";
	pid_t child;
	int fd;

	test_init();
	CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
	shared = test_shared(PAGE);
	fd = memfd_create("steps", MFD_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, (off_t)(file.pages * PAGE)) == 0);
	area_make(&large, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0x10);
	area_make(&moving, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0x20);
	area_make(&file, MAP_SHARED, fd, 0x30);
	area_make(&anonymous, MAP_SHARED | MAP_ANONYMOUS, -1, 0x40);
	child = test_fork(child_main, NULL);
	test_ready();
	while (!test_going()) {
		if (step < told) {
			go_step(false);
			shared->wanted = step;
			while (shared->done < step)
				usleep(1000);
			snprintf(name, sizeof(name), "step.%d", step);
			test_write(name, "", 0);
		}
		usleep(1000);
	}
	if (test_break(1))
		page_write(&large, 5, 1), large.now[5] = 2;
	if (test_break(2))
		file.at[7 * PAGE] ^= 1;
	check_all();
	area_check(&file, "a file in memory");
	area_check(&anonymous, "shared memory");
	/* an image is of one step and no other */
	if (access("expected", R_OK) == 0) {
		test_read("expected", expected, sizeof(expected));
		CHECK_EQUAL(step, atoi(expected));
	}
	test_reap(child, 0);
	test_pass();
}
