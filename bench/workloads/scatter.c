/* SPDX-License-Identifier: Apache-2.0 */
/* scatter READY BYTES PAGES: one process with that much memory; at SIGUSR2 it writes a word to each
 * of so many pages all over it, others each time, and counts that at a place that the bench knows.
 */
#include <signal.h>
#include <sys/mman.h>

#include "workload.h"

#define COUNT_AT 0x100000000ul /* lib/place.py */
#define PAGE	 4096ul

static struct memory {
	char *start;
	size_t size, pages;
} memory;

static void write_pages(int sig)
{
	volatile uint64_t *count = (void *)COUNT_AT;
	size_t all = memory.size / PAGE, step = memory.pages ? all / memory.pages : 1;

	(void)sig;
	for (size_t i = 0; i < memory.pages; i++) {
		size_t page = i * step + (i + *count * 7919) % step;

		*(volatile uint64_t *)(memory.start + page * PAGE + 8) += 1;
	}
	++*count;
}

/* Each page has been filled with what is found nowhere else, but for the word that is written. */
static int intact(void *arg)
{
	const struct memory *m = arg;
	uint64_t *copy = map_memory(PAGE * 256);
	int same = 1;

	fill_memory(copy, PAGE * 256);
	for (size_t i = 0; i < PAGE * 256 / sizeof(*copy); i++)
		same &= i % 512 == 1 || copy[i] == ((const uint64_t *)m->start)[i];
	munmap(copy, PAGE * 256);
	return same;
}

int main(int argc, char **argv)
{
	struct sigaction act = {.sa_handler = write_pages, .sa_flags = SA_RESTART};

	need(argc == 4);
	answer_later();
	memory.size = parse_size(argv[2]);
	memory.pages = parse_size(argv[3]);
	memory.start = map_memory(memory.size);
	fill_memory(memory.start, memory.size);
	need(memory.pages <= memory.size / PAGE);
	need(mmap((void *)COUNT_AT, PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == (void *)COUNT_AT);
	need(sigaction(SIGUSR2, &act, NULL) == 0);
	sleep_and_answer(argv[1], intact, &memory);
}
