/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reprise that was killed has left its mark at the low end of the stack. Since then the stack has
 * been used down to there, and is in use while the program runs on another one.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#define PAGE  4096ul
#define PAGES 8 /* that the mark is for */
#define ROOM  (256ul << 10)

/* struct mark of src/remote/slot.c */
#define MAGIC 0x5c81b3d2f06e947aULL
static const uint64_t mark[] = {MAGIC,	    ~MAGIC,	 MAGIC << 1, ~MAGIC << 1,
				MAGIC << 2, ~MAGIC << 2, PAGES,	     0};

static ucontext_t first, other;
static uint8_t *low;

static uint8_t *low_end(void)
{
	unsigned long start = 0, from;
	char line[256];
	FILE *f = fopen("/proc/self/maps", "re");

	CHECK(f);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "[stack]") && sscanf(line, "%lx", &from) == 1)
			start = from;
	fclose(f);
	CHECK(start);
	return (uint8_t *)start;
}

static void on_another_stack(void)
{
	test_wait();
	if (test_break(1))
		low[3 * PAGE]++;
	CHECK_FILLED(low + PAGE, (PAGES - 1) * PAGE, 7);
	test_pass();
}

int main(void)
{
	void *room = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	test_init();
	CHECK(room != MAP_FAILED);
	low = low_end();
	CHECK((uint8_t *)__builtin_frame_address(0) > low + (PAGES + 2) * PAGE);
	memcpy(low, mark, sizeof(mark));
	test_fill(low + PAGE, (PAGES - 1) * PAGE, 7);
	CHECK(!getcontext(&other));
	other.uc_stack.ss_sp = room;
	other.uc_stack.ss_size = ROOM;
	other.uc_link = &first;
	makecontext(&other, on_another_stack, 0);
	CHECK(!swapcontext(&first, &other));
	return 1;
}
