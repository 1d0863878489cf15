/* SPDX-License-Identifier: Apache-2.0 */
/* memory READY BYTES [shared]: a process with that much memory, all of it written; two that share
 * it. */
#include <sys/mman.h>
#include <unistd.h>

#include "workload.h"

struct memory {
	void *start;
	size_t size;
};

static int intact(void *arg)
{
	const struct memory *m = arg;

	return memory_is_filled(m->start, m->size);
}

static void *share_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	need(p != MAP_FAILED);
	return p;
}

int main(int argc, char **argv)
{
	struct memory m;

	need(argc == 3 || argc == 4);
	answer_later();
	m.size = parse_size(argv[2]);
	m.start = argc == 3 ? map_memory(m.size) : share_memory(m.size);
	fill_memory(m.start, m.size);
	if (argc == 4 && fork() == 0)
		for (;;)
			pause();
	sleep_and_answer(argv[1], intact, &m);
}
