/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that goes through all that makes it other memory, in steps, with images between them:
 * pages are given up, mappings replaced, moved, split and new, processes forked and executed, and
 * the program has a userfaultfd of its own now and then.
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define PAGE  4096UL
#define HUGE  (2UL << 20)
#define PAGES 1024
#define SIZE  (PAGES * PAGE)

/* A page holds a number in several places, and `now` tells which; 0: all zero. */
struct area {
	char *at;
	uint32_t now[PAGES];
};

static struct area steady, holes, replaced, moving, away, split, growing;
static char *watched, *old;
static int step, uffd = -1;
static pid_t child;
static volatile sig_atomic_t told, ended;

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		told++;
	else
		ended = 1;
}

static void page_write(struct area *a, size_t i, uint32_t value)
{
	uint32_t *page = (uint32_t *)(a->at + i * PAGE);

	for (size_t w = 0; w < PAGE / sizeof(*page); w += 128)
		page[w] = value + (uint32_t)i;
	a->now[i] = value;
}

static void write_some(struct area *a, size_t from, size_t to, size_t each, uint32_t value)
{
	for (size_t i = from; i < to; i += each)
		page_write(a, i, value);
}

static void area_write(struct area *a, size_t from, size_t each, uint32_t value)
{
	write_some(a, from, PAGES, each, value);
}

static void area_check(const struct area *a, const char *what)
{
	for (size_t i = 0; i < PAGES; i++) {
		const uint32_t *page = (const uint32_t *)(a->at + i * PAGE);
		uint32_t expected = a->now[i] ? a->now[i] + (uint32_t)i : 0;

		for (size_t w = 0; w < PAGE / sizeof(*page); w += 128)
			CHECKF(page[w] == expected, "%s, page %zu, word %zu: %#x instead of %#x",
			       what, i, w, page[w], expected);
	}
}

/* With all of some page tables to itself. */
static char *make(char *at)
{
	char *room =
		at ? at : mmap(NULL, SIZE + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(room != MAP_FAILED);
	room = (char *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1));
	CHECK(mmap(room, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == room);
	madvise(room, SIZE, MADV_NOHUGEPAGE);
	return room;
}

/* ---- another program ---- */

static void program(char *at)
{
	steady.at = make(at);
	area_write(&steady, 0, 1, 0x7000);
	test_write("child", "", 0);
	while (!test_going() && !ended)
		usleep(1000);
	area_check(&steady, "memory of another program");
	_exit(0);
}

static int child_main(void *arg)
{
	char address[32], name[] = "memory_tracked", *const args[] = {name, address, NULL};

	area_write(&steady, 5, 7, 0x6000);
	test_write("child", "", 0);
	while (!test_going() && !ended)
		usleep(1000);
	area_check(&steady, "memory of a child");
	if (test_going())
		return 0;
	snprintf(address, sizeof(address), "%p", (void *)steady.at);
	execv("/proc/self/exe", args);
	return 1;
}

static void child_answers(void)
{
	while (access("child", F_OK) < 0)
		usleep(1000);
	unlink("child");
}

static void change_child(void)
{
	switch (step % 4) {
	case 1:
		child = test_fork(child_main, NULL);
		child_answers();
		break;
	case 2:
		kill(child, SIGUSR2);
		child_answers();
		break;
	case 3:
		kill(child, SIGUSR2);
		test_reap(child, 0);
		child = 0;
		break;
	}
}

/* ---- a userfaultfd ---- */

static int watch(char *at)
{
	struct uffdio_register reg = {.range = {(uintptr_t)at, 16 * PAGE},
				      .mode = UFFDIO_REGISTER_MODE_WP};

	return ioctl(uffd, UFFDIO_REGISTER, &reg);
}

static void protect(char *at)
{
	struct uffdio_writeprotect wp = {.range = {(uintptr_t)at, PAGE},
					 .mode = UFFDIO_WRITEPROTECT_MODE_WP};

	CHECK(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) == 0);
}

static void change_watched(void)
{
	struct uffdio_api api = {.api = UFFD_API};

	switch (step % 4) {
	case 1:
		uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
		if (uffd < 0)
			break;
		CHECK(ioctl(uffd, UFFDIO_API, &api) == 0);
		watched = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			       -1, 0);
		memset(watched, step, 16 * PAGE);
		CHECK(watch(watched) == 0);
		break;
	case 2:
		/* what was tracked when it was made is its own as well */
		if (uffd >= 0)
			CHECK(watch(old) == 0);
		break;
	case 3:
		close(uffd);
		uffd = -1;
		break;
	}
}

static void check_watched(void)
{
	for (size_t i = 0; i < 16 * PAGE; i += 512)
		CHECKF((watched ? watched[i] : 0) == (watched ? watched[0] : 0) && old[i] == 'o',
		       "watched memory, offset %zu", i);
	if (uffd >= 0)
		protect(watched + PAGE);
}

/* ---- steps ---- */

static void change_mappings(uint32_t tag)
{
	/* a whole page table may go, or only pages */
	if (step % 3 == 0) {
		CHECK(madvise(holes.at + HUGE, HUGE, MADV_DONTNEED) == 0);
		memset(holes.now + PAGES / 2, 0, sizeof(holes.now) / 2);
	} else if (step % 3 == 1) {
		write_some(&holes, PAGES / 2, PAGES, 1, tag);
	}
	CHECK(madvise(holes.at + 100 * PAGE, (size_t)(100 + step) * PAGE, MADV_DONTNEED) == 0);
	memset(holes.now + 100, 0, (size_t)(100 + step) * sizeof(*holes.now));
	write_some(&holes, 120, PAGES / 2, 31, tag);

	CHECK(munmap(replaced.at, SIZE) == 0);
	replaced.at = make(replaced.at);
	memset(replaced.now, 0, sizeof(replaced.now));
	area_write(&replaced, step % 2, 2, tag);

	/* the page tables go along, and come back */
	if (step % 2) {
		CHECK(mremap(moving.at, SIZE, SIZE,
			     MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, away.at) == away.at);
		memcpy(away.now, moving.now, sizeof(away.now));
		memset(moving.now, 0, sizeof(moving.now));
		write_some(&moving, 3, PAGES / 2, 301, tag);
		area_write(&away, 4, 301, tag);
	} else {
		CHECK(mremap(away.at, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, moving.at) ==
		      moving.at);
		memcpy(moving.now, away.now, sizeof(away.now));
		area_write(&moving, 3, 301, tag);
		away.at = make(away.at);
		memset(away.now, 0, sizeof(away.now));
	}

	CHECK(mprotect(split.at + step * 8 * PAGE, 8 * PAGE, PROT_READ) == 0);
	area_write(&split, PAGES / 2, 13, tag);

	/* in place, beside itself */
	growing.at = mremap(growing.at, (size_t)step * 32 * PAGE, (size_t)(step + 1) * 32 * PAGE,
			    MREMAP_MAYMOVE);
	CHECK(growing.at != MAP_FAILED);
	for (size_t i = (size_t)step * 32; i < (size_t)(step + 1) * 32; i++)
		page_write(&growing, i, tag);
}

static void go_step(void)
{
	uint32_t tag = 0x10000u * (uint32_t)++step;

	area_write(&steady, (size_t)step * 3, 211, tag);
	change_mappings(tag);
	change_child();
	change_watched();
}

static void start(void)
{
	struct area *const all[] = {&steady, &holes, &replaced, &moving, &away, &split};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		all[i]->at = make(NULL);
		if (all[i] != &away)
			area_write(all[i], 0, 1, 0x1000);
	}
	growing.at =
		mmap(NULL, 32 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < 32; i++)
		page_write(&growing, i, 0x1000);
	old = make(NULL);
	memset(old, 'o', SIZE);
}

static void check_all(void)
{
	struct area seen = growing;

	area_check(&steady, "memory that mostly stays");
	area_check(&holes, "memory that is given up");
	area_check(&replaced, "a mapping that is replaced");
	area_check(&moving, "a mapping that moves");
	area_check(&away, "where it moves to");
	area_check(&split, "a mapping that is split");
	seen.at = make(NULL);
	memcpy(seen.at, growing.at, (size_t)(step + 1) * 32 * PAGE);
	area_check(&seen, "a mapping that grows");
	check_watched();
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_signal};
	char name[32];

	test_init();
	CHECK(sigaction(SIGUSR1, &sa, NULL) == 0 && sigaction(SIGUSR2, &sa, NULL) == 0);
	if (argc > 1)
		program((char *)strtoul(argv[1], NULL, 0));
	start();
	test_ready();
	while (!test_going()) {
		if (step < told) {
			go_step();
			snprintf(name, sizeof(name), "step.%d", step);
			test_write(name, "", 0);
		}
		usleep(1000);
	}
	if (test_break(1))
		steady.now[5]++;
	if (test_break(2))
		page_write(&moving, 9, 1), moving.now[9] = 2;
	check_all();
	if (child)
		test_reap(child, 0);
	test_pass();
}
