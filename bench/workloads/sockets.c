/* SPDX-License-Identifier: Apache-2.0 */
/* sockets READY N: one process with N sockets, each with data that waits in its queue. */
#include "workload.h"

struct sockets {
	int first;
	size_t n;
};

static int intact(void *arg)
{
	const struct sockets *s = arg;

	for (size_t i = 0; i < s->n; i++)
		if (!socket_is_filled(s->first + (int)i))
			return 0;
	return 1;
}

int main(int argc, char **argv)
{
	struct sockets s;

	need(argc == 3);
	raise_descriptors();
	answer_later();
	s.n = parse_size(argv[2]);
	s.first = open_sockets(s.n);
	sleep_and_answer(argv[1], intact, &s);
}
