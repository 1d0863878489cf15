/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is written all the time is saved as it was at one instant: no page is older or newer
 * than the others.
 *
 * timeout: 60
 */
#include "harness.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  4096UL
#define WORDS (PAGE / sizeof(long))
#define HUGE  (2UL << 20)

/*
 * Every page of an area holds a number, in several places; `now` tells which. Before a page is
 * written it is compared.
 */
struct area {
	volatile long *at;
	size_t pages;
	volatile long *now;
	uint64_t random;
};

static struct area fast = {.pages = 2048}, slow = {.pages = 8192};
static atomic_bool ending;
static atomic_long rounds;

static void page_check(const struct area *a, size_t i)
{
	const volatile long *page = a->at + i * WORDS;

	for (size_t w = 0; w < WORDS; w += 64)
		CHECKF(page[w] == a->now[i], "page %zu of %zu, word %zu: %ld instead of %ld", i,
		       a->pages, w, page[w], a->now[i]);
	CHECK_EQUAL(page[WORDS - 1], a->now[i]);
}

static void page_write(struct area *a, size_t i)
{
	volatile long *page = a->at + i * WORDS;
	long next = a->now[i] + 1;

	page_check(a, i);
	for (size_t w = 0; w < WORDS; w += 64)
		page[w] = next;
	page[WORDS - 1] = next;
	a->now[i] = next;
}

static size_t next_random(struct area *a)
{
	a->random = a->random * 6364136223846793005ULL + 1442695040888963407ULL;
	return (a->random >> 33) % a->pages;
}

/* All of it, over and over. */
static void *write_fast(void *arg)
{
	while (!ending) {
		for (size_t i = 0; i < fast.pages; i++)
			page_write(&fast, i);
		rounds++;
	}
	return arg;
}

/* A page here and there, so that most of it stays as it is for a while. */
static void *write_slowly(void *arg)
{
	while (!ending) {
		for (int i = 0; i < 20; i++)
			page_write(&slow, next_random(&slow));
		usleep(500);
	}
	return arg;
}

static void *make_area(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

static void fill(long *at, size_t pages, long with)
{
	for (size_t i = 0; i < pages; i++)
		at[i * WORDS] = at[i * WORDS + 7] = with + (long)i;
}

static void compare(const long *at, size_t pages, long with)
{
	for (size_t i = 0; i < pages; i++)
		CHECKF(at[i * WORDS] == with + (long)i && at[i * WORDS + 7] == with + (long)i,
		       "page %zu: %ld and %ld instead of %ld", i, at[i * WORDS], at[i * WORDS + 7],
		       with + (long)i);
}

/* Mappings that come, move, lose pages and go. */
static void *change_mappings(void *arg)
{
	const size_t pages = 512;

	for (long n = 1; !ending; n++) {
		long *a = make_area(pages * PAGE), *b, with = n << 20;

		fill(a, pages, with);
		usleep(1000);
		b = mremap(a, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			   make_area(pages * PAGE));
		CHECK(b != MAP_FAILED);
		usleep(1000);
		compare(b, pages, with);
		madvise(b + 100 * WORDS, 200 * PAGE, MADV_DONTNEED);
		usleep(1000);
		for (size_t i = 100; i < 300; i++)
			CHECK_EQUAL(b[i * WORDS], 0);
		compare(b, 100, with);
		compare(b + 300 * WORDS, pages - 300, with + 300);
		munmap(b, pages * PAGE);
	}
	return arg;
}

/*
 * An empty mapping is moved beside one with contents, and merged with it; then the contents change.
 * What tells of writes in the one may be lost with the other.
 */
static void *merge_mappings(void *arg)
{
	const size_t size = 64 * PAGE;

	for (long n = 1; !ending; n++) {
		long *room = mmap(NULL, 3 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		     *at = room + size / sizeof(long), with = n << 20;
		void *empty;

		CHECK(room != MAP_FAILED);
		CHECK(mmap(at, size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
		fill(at, 64, with);
		empty = make_area(size);
		test_sleep((double)(n % 8) / 100);
		compare(at, 64, with);
		CHECK(mremap(empty, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
			     at + size / sizeof(long)) != MAP_FAILED);
		for (int again = 1; again < 20 && !ending; again++) {
			fill(at, 64, with + again);
			usleep(3000);
			compare(at, 64, with + again);
		}
		munmap(room, 3 * size);
	}
	return arg;
}

/* What children do not get: MEMORY_WITHOUT. */
static bool is_inherited_as_told(void)
{
	const char *without = getenv("MEMORY_WITHOUT");
	unsigned char there[1];

	if (without && !strcmp(without, "unforked"))
		return mincore((void *)(fast.at + WORDS), PAGE, there) < 0 && errno == ENOMEM;
	if (without && !strcmp(without, "wiped"))
		return fast.at[WORDS] == 0;
	return true;
}

/* The application knows all its children; but for a moment where reprise is killed while it makes
 * a copy (MEMORY_KILLED). */
static void *fork_children(void *arg)
{
	bool killed = getenv("MEMORY_KILLED");

	while (!ending) {
		pid_t child = fork();
		int status;

		CHECK(child >= 0);
		if (child == 0)
			_exit(slow.now[5] > 0 && is_inherited_as_told() ? 42 : 1);
		CHECK_EQUAL(waitpid(killed ? child : -1, &status, __WALL), child);
		CHECK_EQUAL(WEXITSTATUS(status), 42);
		CHECK(killed || (waitpid(-1, NULL, __WALL | WNOHANG) == -1 && errno == ECHILD));
		usleep(20000);
	}
	return arg;
}

/* Nothing is copied in advance of a private mapping of a file. */
static void *map_private(size_t size)
{
	int fd = memfd_create("private", 0);
	void *p;

	CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED);
	close(fd);
	return p;
}

/* Private huge pages, of which none is left to be forked. */
static void attach_huge(void)
{
	long *p = mmap(NULL, HUGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (p == MAP_FAILED)
		test_skip("no huge pages");
	*p = 42;
}

/* What fork leaves out, or keeps a copy from being made by fork; test/state/instant.py. */
static void hinder(const char *how)
{
	if (!strcmp(how, "subreaper"))
		CHECK_EQUAL(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	else if (!strcmp(how, "segment"))
		CHECK(shmat(shmget(IPC_PRIVATE, PAGE, 0600), NULL, 0) != (void *)-1);
	else if (!strcmp(how, "unforked"))
		CHECK(!madvise((void *)fast.at, fast.pages * PAGE, MADV_DONTFORK) &&
		      !madvise((void *)slow.at, slow.pages * PAGE, MADV_DONTFORK));
	else if (!strcmp(how, "wiped"))
		CHECK_EQUAL(madvise((void *)fast.at, fast.pages * PAGE, MADV_WIPEONFORK), 0);
	else if (!strcmp(how, "locked"))
		CHECK_EQUAL(mlock((void *)fast.at, fast.pages * PAGE), 0);
	else if (!strcmp(how, "huge"))
		attach_huge();
	else
		CHECKF(0, "%s", how);
}

static void start(struct area *a, bool private)
{
	a->at = private ? map_private(a->pages * PAGE) : make_area(a->pages * PAGE);
	a->now = make_area(a->pages * sizeof(long));
	a->random = a->pages;
	for (size_t i = 0; i < a->pages; i++)
		page_write(a, i);
}

int main(void)
{
	/* the last one is left out where children would count, too: a segment is attached to them
	 */
	void *(*const works[])(void *) = {write_fast,	  write_slowly,	  change_mappings,
					  merge_mappings, merge_mappings, merge_mappings,
					  fork_children};
	const char *without = getenv("MEMORY_WITHOUT");
	enum { THREADS = sizeof(works) / sizeof(works[0]) };
	const int running = THREADS - (without && !strcmp(without, "segment"));
	pthread_t threads[THREADS];
	long before;

	test_init();
	/* more than is kept in memory */
	if (getenv("MEMORY_BUSY"))
		fast.pages = 16384;
	start(&fast, getenv("MEMORY_PRIVATE"));
	start(&slow, false);
	if (without)
		hinder(without);
	for (int i = 0; i < running; i++)
		CHECK_EQUAL(pthread_create(&threads[i], NULL, works[i], NULL), 0);
	test_wait();
	if (test_break(1)) /* as if one write had been missed */
		slow.at[17 * WORDS]--;
	if (test_break(2))
		fast.now[fast.pages / 2]++;
	before = rounds;
	while (rounds < before + 3)
		usleep(1000);
	ending = true;
	for (int i = 0; i < running; i++)
		CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
	for (size_t i = 0; i < slow.pages; i++)
		page_check(&slow, i);
	test_pass();
}
