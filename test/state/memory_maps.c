/* SPDX-License-Identifier: Apache-2.0 */
/* The whole of /proc/self/maps, line by line, with many odd mappings.
 *
 * not-in: user: shared anonymous memory is a memfd when an ordinary user restarts it, and is named
 * so
 * not-in: container: the files of the host appear there under other device numbers
 */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL

static char before[200000], after[200000];

/* Device and inode of what has no name in a file system are new after a restart. */
static void normalise(const char *line, char *to, size_t size)
{
	unsigned long start, end, offset, inode;
	char protection[8], device[16];
	int at = 0;

	CHECK(sscanf(line, "%lx-%lx %7s %lx %15s %lu %n", &start, &end, protection, &offset, device,
		     &inode, &at) >= 6);
	if (line[at] != '/' || strstr(line, " (deleted)"))
		inode = 0, device[0] = 0;
	snprintf(to, size, "%lx-%lx %s %lx %s %lu %s", start, end, protection, offset, device,
		 inode, line + at);
}

int main(void)
{
	char *room, *a, *b, *old, *now, x[512], y[512];
	int fd;

	test_init();
	/* All of it is touched already, so that reading it twice says the same. */
	setvbuf(stdout, NULL, _IONBF, 0);
	room = mmap(NULL, 300 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    0);
	CHECK(room != MAP_FAILED);
	fd = test_file("mapped", 50 * PAGE, 1);
	for (int i = 0; i < 290; i += 10) {
		a = room + i * PAGE;
		switch (i / 10 % 6) {
		case 0:
			CHECK(!munmap(a, 3 * PAGE));
			break;
		case 1:
			CHECK(!mprotect(a, PAGE, PROT_READ | PROT_WRITE));
			a[0] = 1;
			break;
		case 2:
			CHECK(mmap(a, 2 * PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE, fd, 7 * PAGE) ==
			      a);
			break;
		case 3:
			CHECK(mmap(a, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED, fd,
				   (i % 40) * PAGE) == a);
			break;
		case 4:
			CHECK(mmap(a, 3 * PAGE, PROT_READ | PROT_WRITE,
				   MAP_FIXED | MAP_SHARED | MAP_ANONYMOUS, -1, 0) == a);
			a[PAGE] = 2;
			break;
		case 5:
			/* Neighbours that the kernel would join if they had been made alike. */
			CHECK(mmap(a, PAGE, PROT_READ | PROT_WRITE,
				   MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == a);
			CHECK(!mprotect(a + PAGE, PAGE, PROT_READ | PROT_WRITE));
			a[0] = 3;
			break;
		}
	}
	close(fd);
	/* In the lowest memory that is allowed, and high up. */
	mmap((void *)0x10000, PAGE, PROT_READ, MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS,
	     -1, 0);
	mmap((void *)0x7fffffffe000, PAGE, PROT_READ,
	     MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	test_read("/proc/self/maps", before, sizeof(before));
	test_read("/proc/self/maps", before, sizeof(before));

	test_wait();
	if (test_break(1))
		munmap(room + 299 * PAGE, PAGE);
	test_read("/proc/self/maps", after, sizeof(after));
	old = before;
	now = after;
	while ((a = strsep(&old, "\n")) && (b = strsep(&now, "\n"))) {
		if (!*a && !*b)
			test_pass();
		CHECKF(*a && *b, "a line more or less: %s%s", a, b);
		normalise(a, x, sizeof(x));
		normalise(b, y, sizeof(y));
		CHECKF(!strcmp(x, y), "%s was %s", b, a);
	}
	test_fail(__FILE__, __LINE__, "no end of the maps");
}
