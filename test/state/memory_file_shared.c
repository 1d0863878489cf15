/* SPDX-License-Identifier: Apache-2.0 */
/* Shared mappings of files: what is written reaches the file and the other tasks. */
#include "harness.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE  4096UL
#define PAGES 8

static volatile char *at;
static char *offset;

static int child(void *arg)
{
	test_hold();
	while (at[5] != 'p')
		usleep(1000);
	at[PAGE] = 'c';
	return 3;
}

int main(void)
{
	const char *volatile read_only;
	char c, flags[256], now[256];
	int fd, ro;
	pid_t pid;

	test_init();
	fd = test_file("shared", PAGES * PAGE, 1);
	at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	offset = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
	ro = open("shared", O_RDONLY);
	read_only = mmap(NULL, PAGES * PAGE, PROT_READ, MAP_SHARED, ro, 0);
	CHECK(at != MAP_FAILED && offset != MAP_FAILED && read_only != MAP_FAILED);
	close(fd);
	close(ro);
	at[3 * PAGE + 1] = 'x';
	test_vm_flags((void *)read_only, flags, sizeof(flags));
	pid = test_fork(child, NULL);

	test_wait();
	/* A copy beside the original shares the file with it, so only what both do alike is
	 * checked. */
	if (test_break(1))
		at = mmap((void *)at, PAGES * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
	CHECK_EQUAL(at[3 * PAGE + 1], 'x');
	at[5] = 'p';
	test_reap(pid, 3);
	CHECK_EQUAL(at[PAGE], 'c');
	CHECK_EQUAL(offset[0], 'c');
	CHECK_EQUAL(read_only[5], 'p');
	fd = open("shared", O_RDONLY);
	CHECK_EQUAL(pread(fd, &c, 1, 5), 1);
	CHECK_EQUAL(c, 'p');
	CHECK_EQUAL(pread(fd, &c, 1, PAGE), 1);
	CHECK_EQUAL(c, 'c');
	/* Opened for reading only, it cannot become writable. */
	CHECK(mprotect((void *)read_only, PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES);
	test_vm_flags((void *)read_only, now, sizeof(now));
	CHECKF(!strcmp(flags, now), "flags are%s, were%s", now, flags);
	CHECK(!mprotect(offset, PAGE, PROT_READ | PROT_WRITE));
	test_pass();
}
