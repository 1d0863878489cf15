/* SPDX-License-Identifier: Apache-2.0 */
/* memory READY BYTES: one process with that much memory, all of it written. */
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

int main(int argc, char **argv)
{
	struct memory m;

	need(argc == 3);
	answer_later();
	m.size = parse_size(argv[2]);
	m.start = map_memory(m.size);
	fill_memory(m.start, m.size);
	sleep_and_answer(argv[1], intact, &m);
}
