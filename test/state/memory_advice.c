/* SPDX-License-Identifier: Apache-2.0 */
/* What was said about memory by madvise, and by the flags of mmap. */
#include "harness.h"

#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL

static const int advice[] = {
	MADV_NORMAL,	MADV_RANDOM,   MADV_SEQUENTIAL, MADV_DONTFORK,	 MADV_DONTDUMP,
	MADV_MERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_WIPEONFORK,
};
#define COUNT (int)(sizeof(advice) / sizeof(advice[0]))

struct mapping {
	char *at, flags[256];
};

/* Without soft-dirty, which any look may clear or set, and as a set. */
static void flags_of(char *at, char *flags)
{
	char *sd;

	test_vm_flags(at, flags, 256);
	sd = strstr(flags, " sd ");
	if (sd)
		memmove(sd, sd + 3, strlen(sd + 3) + 1);
}

int main(void)
{
	static const int flags[] = {MAP_NORESERVE, MAP_STACK, MAP_LOCKED, MAP_POPULATE, 0};
	struct mapping made[COUNT], flagged[5], file[3];
	char now[256];
	int fd;

	test_init();
	for (int i = 0; i < COUNT; i++) {
		made[i].at = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(made[i].at != MAP_FAILED);
		madvise(made[i].at, 4 * PAGE, advice[i]); /* some are not configured */
		/* Two at once on each second one. */
		if (i % 2)
			madvise(made[i].at, 4 * PAGE, MADV_DONTDUMP);
		made[i].at[PAGE] = (char)i;
		flags_of(made[i].at, made[i].flags);
	}
	for (int i = 0; i < 5; i++) {
		flagged[i].at = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | flags[i], -1, 0);
		CHECK(flagged[i].at != MAP_FAILED);
		flags_of(flagged[i].at, flagged[i].flags);
	}
	fd = test_file("advised", 8 * PAGE, 1);
	for (int i = 0; i < 3; i++) {
		file[i].at = mmap(NULL, 8 * PAGE, PROT_READ, i ? MAP_PRIVATE : MAP_SHARED, fd, 0);
		CHECK(!madvise(file[i].at, 8 * PAGE, i == 2 ? MADV_RANDOM : MADV_SEQUENTIAL));
		madvise(file[i].at, 8 * PAGE, MADV_DONTFORK);
		flags_of(file[i].at, file[i].flags);
	}
	close(fd);

	test_wait();
	if (test_break(1))
		madvise(made[3].at, 4 * PAGE, MADV_DOFORK);
	if (test_break(2))
		madvise(file[0].at, 8 * PAGE, MADV_NORMAL);
	for (int i = 0; i < COUNT; i++) {
		flags_of(made[i].at, now);
		CHECKF(!strcmp(now, made[i].flags), "advice %d: flags are%s, were%s", advice[i],
		       now, made[i].flags);
		CHECK_EQUAL(made[i].at[PAGE], i);
	}
	for (int i = 0; i < 5; i++) {
		flags_of(flagged[i].at, now);
		CHECKF(!strcmp(now, flagged[i].flags), "mmap flag %x: flags are%s, were%s",
		       flags[i], now, flagged[i].flags);
	}
	for (int i = 0; i < 3; i++) {
		flags_of(file[i].at, now);
		CHECKF(!strcmp(now, file[i].flags), "file mapping %d: flags are%s, were%s", i, now,
		       file[i].flags);
	}
	test_pass();
}
