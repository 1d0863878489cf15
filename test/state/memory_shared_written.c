/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory of each kind that is written all the time, by two processes, is saved as it was at
 * one instant: with all that was written, in whatever way, and nothing that came later.
 *
 * needs: root
 * not-in: cycles: it touches more and more pages by itself
 * timeout: 60
 */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  4096UL
#define WORDS (PAGE / sizeof(long))
#define PAGES 2048
#define SIZE  (PAGES * PAGE)
/* The last pages are for those who write in strange ways. */
#define ODD   64

enum kind { ANON, SEGMENT, MEMFD, REMOVED, HUGE, PRIVATE_HUGE, DESCRIPTOR, GROWING, KINDS };

static const char *const names[] = {"shared anonymous memory",
				    "a segment",
				    "a memfd",
				    "a removed file",
				    "huge pages",
				    "private huge pages",
				    "a memfd that nobody maps",
				    "a memfd mapped in part"};

/* Pages hold a number in several places; `now` tells which: of those that this process writes. */
struct area {
	long *at; /* NULL: there is none */
	int fd;
	long now[PAGES];
};

static struct area areas[KINDS];
static int who; /* 0: the parent, 1: the child */
static atomic_bool ending;
static atomic_long rounds;
static bool strange, growing;

static bool is_mapped(const struct area *a, size_t i)
{
	return a->at && (a != &areas[GROWING] || i < PAGES - ODD);
}

static void page_read(const struct area *a, size_t i, long *to)
{
	if (is_mapped(a, i))
		memcpy(to, a->at + i * WORDS, PAGE);
	else
		CHECK_EQUAL(pread(a->fd, to, PAGE, (off_t)(i * PAGE)), PAGE);
}

static void page_check(const struct area *a, size_t i)
{
	long page[WORDS];

	page_read(a, i, page);
	for (size_t w = 0; w < WORDS; w += 64)
		CHECKF(page[w] == a->now[i], "%s, page %zu, word %zu: %ld instead of %ld",
		       names[a - areas], i, w, page[w], a->now[i]);
}

static void fill(volatile long *page, long value)
{
	for (size_t w = 0; w < WORDS; w += 64)
		page[w] = value;
}

static void page_write(struct area *a, size_t i)
{
	long next = a->now[i] + 1, page[WORDS] = {0};

	page_check(a, i);
	if (is_mapped(a, i)) {
		fill(a->at + i * WORDS, next);
	} else {
		fill(page, next);
		CHECK_EQUAL(pwrite(a->fd, page, PAGE, (off_t)(i * PAGE)), PAGE);
	}
	a->now[i] = next;
}

/* Each process has every other page; the mapping of private pages is the parent's alone. */
static bool is_mine(const struct area *a, size_t i)
{
	return i < PAGES - ODD && (a == &areas[PRIVATE_HUGE] ? who == 0 : i % 2 == (size_t)who);
}

static bool exists(const struct area *a)
{
	return a->at || a->fd >= 0;
}

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005UL + 1442695040888963407UL;
	return *state >> 33;
}

/* A page here and there, and a small part all the time. */
static void *write_pages(void *arg)
{
	uint64_t random = (uint64_t)who;

	while (!ending) {
		for (int k = 0; k < KINDS; k++) {
			struct area *a = &areas[k];

			if (!exists(a) || (k == DESCRIPTOR && !strange))
				continue;
			for (int n = 0; n < 4; n++) {
				size_t i = next_random(&random) % (n ? 64 : PAGES);

				if (is_mine(a, i))
					page_write(a, i);
			}
		}
		rounds++;
		usleep(1000);
	}
	return arg;
}

/* ---- other ways ---- */

static void by_child(struct area *a, size_t i)
{
	pid_t pid;

	page_check(a, i);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		fill(a->at + i * WORDS, a->now[i] + 1);
		_exit(0);
	}
	test_reap(pid, 0);
	a->now[i]++;
}

static void by_copy(struct area *a, size_t i)
{
	long *other = mremap(a->at, 0, SIZE, MREMAP_MAYMOVE);

	CHECK(other != MAP_FAILED);
	page_check(a, i);
	fill(other + i * WORDS, a->now[i] + 1);
	CHECK(munmap(other, SIZE) == 0);
	a->now[i]++;
}

static void by_mapping(struct area *a, size_t i)
{
	long *other = a->fd >= 0 ? mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0)
				 : shmat((int)-a->fd - 2, NULL, 0);

	CHECK(other != MAP_FAILED);
	page_check(a, i);
	fill(other + i * WORDS, a->now[i] + 1);
	CHECK((a->fd >= 0 ? munmap(other, SIZE) : shmdt(other)) == 0);
	a->now[i]++;
}

static void by_call(struct area *a, size_t i)
{
	long page[WORDS] = {0};

	page_check(a, i);
	fill(page, a->now[i] + 1);
	CHECK_EQUAL(pwrite(a->fd, page, PAGE, (off_t)(i * PAGE)), PAGE);
	a->now[i]++;
}

static void by_hole(struct area *a, size_t i)
{
	page_check(a, i);
	CHECK(fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(i * PAGE),
			PAGE) == 0);
	a->now[i] = 0;
}

/* Protection and advice that come and go, and a mapping that is moved away and back. */
static void by_moving(struct area *a, size_t i)
{
	long *end = a->at + (PAGES - ODD) * WORDS,
	     *room = mmap(NULL, ODD * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(room != MAP_FAILED);
	page_check(a, i);
	CHECK(mremap(end, ODD * PAGE, ODD * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room) == room);
	fill(room + (i - (PAGES - ODD)) * WORDS, a->now[i] + 1);
	CHECK(mremap(room, ODD * PAGE, ODD * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, end) == end);
	a->now[i]++;
}

/* What is not mapped is, for a moment, by the mapping before it. */
static void by_growing(struct area *a, size_t i)
{
	long *end = a->at + (PAGES - ODD) * WORDS;
	const size_t size = (PAGES - ODD) * PAGE;

	page_check(a, i);
	CHECK(munmap(end, ODD * PAGE) == 0);
	CHECK(mremap(a->at, size, SIZE, 0) == a->at);
	fill(a->at + i * WORDS, a->now[i] + 1);
	if (a->now[i] % 2)
		usleep(5000);
	CHECK(mmap(end, ODD * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	      end);
	a->now[i]++;
}

/* All the time, in that way alone. */
static void *write_growing(void *arg)
{
	uint64_t random = 77;

	while (!ending) {
		by_growing(&areas[GROWING], PAGES - ODD + next_random(&random) % ODD);
		usleep(5000);
	}
	return arg;
}

static void *write_strangely(void *arg)
{
	uint64_t random = 77;

	while (!ending) {
		size_t i = PAGES - ODD + next_random(&random) % ODD;

		usleep((useconds_t)(next_random(&random) % 300000));
		switch (next_random(&random) % 9) {
		case 0:
			by_child(&areas[ANON], i);
			break;
		case 1:
			by_child(&areas[SEGMENT], i);
			break;
		case 2:
			by_copy(&areas[ANON], i);
			break;
		case 3:
			by_mapping(&areas[next_random(&random) % 2 ? MEMFD : REMOVED], i);
			break;
		case 4:
			by_mapping(&areas[SEGMENT], i);
			break;
		case 5:
			by_call(&areas[next_random(&random) % 2 ? MEMFD : REMOVED], i);
			break;
		case 6:
			by_hole(&areas[MEMFD], i);
			break;
		case 7:
			by_moving(&areas[ANON], i);
			break;
		case 8:
			by_growing(&areas[GROWING], i);
			break;
		}
	}
	return arg;
}

/* ---- all of it ---- */

static void *map_shared(int fd)
{
	void *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

static void *map_huge(int flags)
{
	char text[32];
	void *at;

	test_read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", text, sizeof(text));
	if (atoi(text) < 16)
		return NULL;
	at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_HUGETLB | flags, -1, 0);
	return at == MAP_FAILED ? NULL : at;
}

static int make_removed(void)
{
	char name[] = "/dev/shm/reprise-test-XXXXXX";
	int fd = mkstemp(name);

	CHECK(fd >= 0);
	unlink(name);
	return fd;
}

static void start(void)
{
	int segment = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);

	CHECK(segment >= 0);
	for (int k = 0; k < KINDS; k++)
		areas[k].fd = -1;
	areas[ANON].at = test_shared(SIZE);
	areas[SEGMENT].at = shmat(segment, NULL, 0);
	areas[SEGMENT].fd = -2 - segment;
	areas[MEMFD].fd = memfd_create("written", 0);
	areas[REMOVED].fd = make_removed();
	areas[DESCRIPTOR].fd = memfd_create("by descriptor", 0);
	areas[GROWING].fd = memfd_create("growing", 0);
	CHECK(ftruncate(areas[MEMFD].fd, SIZE) == 0 && ftruncate(areas[REMOVED].fd, SIZE) == 0 &&
	      ftruncate(areas[DESCRIPTOR].fd, SIZE) == 0 &&
	      ftruncate(areas[GROWING].fd, SIZE) == 0);
	areas[MEMFD].at = map_shared(areas[MEMFD].fd);
	areas[REMOVED].at = map_shared(areas[REMOVED].fd);
	areas[GROWING].at = map_shared(areas[GROWING].fd);
	CHECK(mmap(areas[GROWING].at + (PAGES - ODD) * WORDS, ODD * PAGE, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
	areas[HUGE].at = map_huge(MAP_SHARED);
	areas[PRIVATE_HUGE].at = map_huge(MAP_PRIVATE);
	for (int k = 0; k < KINDS; k++)
		for (size_t i = 0; exists(&areas[k]) && i < PAGES; i++)
			page_write(&areas[k], i);
}

static void go_on(void)
{
	pthread_t writer, other;
	long before;

	CHECK_EQUAL(pthread_create(&writer, NULL, write_pages, NULL), 0);
	if (strange && who == 0)
		CHECK_EQUAL(pthread_create(&other, NULL, growing ? write_growing : write_strangely,
					   NULL),
			    0);
	if (who == 0)
		test_wait();
	else
		test_hold();
	if (test_break(1) && who == 0) /* as if one write had been missed */
		areas[ANON].now[PAGES - 1]++;
	if (test_break(2) && who == 1)
		areas[SEGMENT].at[WORDS]++;
	if (test_break(3) && who == 0)
		areas[DESCRIPTOR].now[2]++;
	before = rounds;
	while (rounds < before + 3)
		usleep(1000);
	ending = true;
	CHECK_EQUAL(pthread_join(writer, NULL), 0);
	if (strange && who == 0)
		CHECK_EQUAL(pthread_join(other, NULL), 0);
	for (int k = 0; k < KINDS; k++)
		for (size_t i = 0; exists(&areas[k]) && i < PAGES; i++)
			if (is_mine(&areas[k], i) || (who == 0 && i >= PAGES - ODD))
				page_check(&areas[k], i);
}

static int child(void *arg)
{
	who = 1;
	go_on();
	return 0;
}

int main(void)
{
	pid_t pid;

	test_init();
	strange = getenv("MEMORY_STRANGE");
	growing = strange && !strcmp(getenv("MEMORY_STRANGE"), "grow");
	start();
	pid = test_fork(child, NULL);
	go_on();
	test_reap(pid, 0);
	shmctl(-2 - areas[SEGMENT].fd, IPC_RMID, NULL);
	test_pass();
}
