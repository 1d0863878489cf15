/* SPDX-License-Identifier: Apache-2.0 */
/* rewrite READY BYTES HOT: one process with that much memory, whose first HOT bytes it writes over
 * and over, a word a page; how often it did is told at a place that the bench knows. */
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "workload.h"

#define COUNT_AT 0x100000000ul /* lib/place.py */
#define PAGE	 4096ul

struct memory {
	char *start;
	size_t size, hot;
};

static void *rewrite(void *arg)
{
	const struct memory *m = arg;
	volatile uint64_t *count = (void *)COUNT_AT;

	for (uint64_t n = 1;; n++)
		for (size_t at = 0; at < m->hot; at += PAGE) {
			*(volatile uint64_t *)(m->start + at) = n;
			++*count;
		}
	return arg;
}

/* What is never written is as it was. */
static int intact(void *arg)
{
	const struct memory *m = arg;
	char *copy = map_memory(m->size);
	int same;

	fill_memory(copy, m->size);
	same = !memcmp(copy + m->hot, m->start + m->hot, m->size - m->hot);
	munmap(copy, m->size);
	return same;
}

int main(int argc, char **argv)
{
	struct memory m;
	pthread_t thread;

	need(argc == 4);
	answer_later();
	m.size = parse_size(argv[2]);
	m.hot = parse_size(argv[3]);
	need(m.hot <= m.size);
	m.start = map_memory(m.size);
	fill_memory(m.start, m.size);
	need(mmap((void *)COUNT_AT, PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == (void *)COUNT_AT);
	need(pthread_create(&thread, NULL, rewrite, &m) == 0);
	sleep_and_answer(argv[1], intact, &m);
}
