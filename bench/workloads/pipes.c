/* SPDX-License-Identifier: Apache-2.0 */
/* pipes READY N: one process with N pipes, each of which holds something. */
#include <sys/ioctl.h>

#include "workload.h"

static int intact(void *arg)
{
	int held = 0;

	return ioctl(*(const int *)arg, FIONREAD, &held) == 0 && held == PIPE_HOLDS;
}

int main(int argc, char **argv)
{
	int last;

	need(argc == 3);
	raise_descriptors();
	answer_later();
	last = open_pipes(parse_size(argv[2]));
	sleep_and_answer(argv[1], intact, &last);
}
