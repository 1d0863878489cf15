/* SPDX-License-Identifier: Apache-2.0 */
/* Private mappings of files: modified pages are kept, others still come from the file. */
#include "harness.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE  4096UL
#define PAGES 32

static sigjmp_buf out;

static void bus(int sig)
{
	siglongjmp(out, 1);
}

int main(void)
{
	char *at, *middle, *beyond, page[PAGE], line[512];
	int fd;

	test_init();
	fd = test_file("mapped", PAGES * PAGE + 100, 1);
	at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	middle = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE, fd, 16 * PAGE);
	/* Ends in the middle of a page, and goes beyond the end of the file. */
	beyond = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, PAGES * PAGE);
	CHECK(at != MAP_FAILED && middle != MAP_FAILED && beyond != MAP_FAILED);
	close(fd);
	for (int i = 0; i < PAGES; i += 3)
		test_fill(at + i * PAGE, PAGE, 100 + i);
	/* One that was read, and others that never were. */
	(void)!*(volatile char *)(at + PAGE);
	memset(beyond + 200, 7, 10);
	test_map(middle, line, sizeof(line));

	test_wait();
	if (test_break(1))
		at[3 * PAGE] ^= 1;
	if (test_break(2))
		at[PAGE * 2 + 5] ^= 1;
	for (int i = 0; i < PAGES; i++) {
		if (i % 3 == 0) {
			CHECK_FILLED(at + i * PAGE, PAGE, 100 + i);
			continue;
		}
		/* As in the file. */
		fd = open("mapped", O_RDONLY);
		CHECK_EQUAL(pread(fd, page, PAGE, i * PAGE), PAGE);
		close(fd);
		CHECKF(!memcmp(at + i * PAGE, page, PAGE), "page %d is not that of the file", i);
	}
	CHECKF(test_smaps(at, "Anonymous") / 4 <= (PAGES + 2) / 3,
	       "%ld KiB are private, which is more than were written", test_smaps(at, "Anonymous"));
	CHECK(strstr(line, "/mapped"));
	{
		char now[512];

		test_map(middle, now, sizeof(now));
		CHECKF(!strcmp(now, line), "%s is now %s", line, now);
	}
	for (int i = 0; i < 10; i++)
		CHECK_EQUAL(beyond[200 + i], 7);
	CHECK_EQUAL(beyond[210], 0);
	signal(SIGBUS, bus);
	if (!sigsetjmp(out, 1)) {
		beyond[PAGE] = 1;
		test_fail(__FILE__, __LINE__, "no SIGBUS beyond the end of the file");
	}
	test_pass();
}
