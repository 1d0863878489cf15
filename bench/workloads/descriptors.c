/* SPDX-License-Identifier: Apache-2.0 */
/* descriptors READY N: one process with N descriptors, of files in READY.files, pipes, a device,
 * and copies. */
#include <fcntl.h>
#include <stdio.h>

#include "workload.h"

static int intact(void *arg)
{
	return fcntl(*(const int *)arg, F_GETFL) >= 0;
}

int main(int argc, char **argv)
{
	char directory[4096];
	int last;

	need(argc == 3);
	need(snprintf(directory, sizeof(directory), "%s.files", argv[1]) < (int)sizeof(directory));
	raise_descriptors();
	answer_later();
	last = open_descriptors(parse_size(argv[2]), directory);
	sleep_and_answer(argv[1], intact, &last);
}
