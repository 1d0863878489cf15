/* SPDX-License-Identifier: Apache-2.0 */
/* The heap: its limits, that it grows and shrinks, that malloc still works. */
#include "harness.h"

#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#define COUNT 3000

int main(void)
{
	char *blocks[COUNT], *top, line[256];

	test_init();
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	for (int i = 0; i < COUNT; i++) {
		blocks[i] = malloc(i * 7 % 3000 + 8);
		test_fill(blocks[i], i * 7 % 3000 + 8, i);
	}
	for (int i = 0; i < COUNT; i += 3) {
		free(blocks[i]);
		blocks[i] = NULL;
	}
	/* Not at the end of a page. */
	CHECK(sbrk(1001) != (void *)-1);
	top = sbrk(0);

	test_wait();
	if (test_break(1))
		sbrk(1);
	if (test_break(2))
		blocks[1][0] ^= 1;
	CHECK(sbrk(0) == top);
	CHECK_EQUAL(test_stat(getpid(), 47) % 4096 >= 0, 1);
	test_map(blocks[1], line, sizeof(line));
	CHECKF(strstr(line, "[heap]"), "%s", line);
	for (int i = 0; i < COUNT; i++)
		if (blocks[i])
			CHECK_FILLED(blocks[i], i * 7 % 3000 + 8, i);
	CHECK(sbrk(10 << 20) == top);
	memset(top, 5, 10 << 20);
	CHECK(sbrk(-(10 << 20)) == top + (10 << 20));
	CHECK(sbrk(0) == top);
	for (int i = 0; i < COUNT; i += 3)
		CHECK((blocks[i] = malloc(5000)));
	for (int i = 0; i < COUNT; i++)
		free(blocks[i]);
	malloc_trim(0);
	test_pass();
}
