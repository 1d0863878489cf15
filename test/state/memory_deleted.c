/* SPDX-License-Identifier: Apache-2.0 */
/* Files that were deleted, or replaced by others, while they were mapped.
 *
 * not-in: user: an ordinary user may not open a deleted file through /proc/PID/map_files; refused
 * by name
 */
#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096UL
#define SIZE (10 * PAGE)

static char *shared;

static int child(void *arg)
{
	test_hold();
	while (*(volatile char *)shared != 'p')
		usleep(1000);
	shared[1] = 'c';
	return 2;
}

int main(void)
{
	char *private, *replaced, line[512], c;
	pid_t pid;
	int fd, kept;

	test_init();
	kept = test_file("deleted", SIZE, 1);
	shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, kept, 0);
	private = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, kept, 0);
	fd = test_file("replaced", SIZE, 2);
	replaced = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(shared != MAP_FAILED && private != MAP_FAILED && replaced != MAP_FAILED);
	close(fd);
	CHECK(!unlink("deleted"));
	/* A package upgrade: another file of the same name. */
	close(test_file("new", SIZE, 3));
	CHECK(!rename("new", "replaced"));
	memset(private + PAGE, 9, PAGE);
	pid = test_fork(child, NULL);

	test_wait();
	if (test_break(1))
		shared[PAGE] ^= 1;
	CHECK_FILLED_FROM(shared, 8, SIZE, 1);
	CHECK_EQUAL(private[PAGE], 9);
	memcpy(private + PAGE, shared + PAGE, PAGE);
	CHECK_FILLED_FROM(private, 8, SIZE, 1);
	CHECK_FILLED(replaced, SIZE, 2);
	shared[0] = 'p';
	test_reap(pid, 2);
	CHECK_EQUAL(shared[1], 'c');
	CHECK_EQUAL(pread(kept, &c, 1, 1), 1);
	CHECK_EQUAL(c, 'c');
	test_map(shared, line, sizeof(line));
	CHECKF(strstr(line, "(deleted)"), "%s", line);
	CHECK(access("deleted", F_OK) < 0);
	test_pass();
}
