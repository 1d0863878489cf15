/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that were written and then made read-only or executable, of no file and of files. */
#include "harness.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL

static sigjmp_buf out;
static const char constant[3 * PAGE] __attribute__((aligned(4096))) = "constant";

static void fault(int sig)
{
	siglongjmp(out, sig);
}

static bool writable(volatile char *at)
{
	if (sigsetjmp(out, 1))
		return false;
	*at = 0;
	return true;
}

int main(void)
{
	/* mov $number, %eax; ret */
	static const unsigned char machine_code[] = {0xb8, 42, 0, 0, 0, 0xc3};
	char *code, *file, *mixed;
	int fd;

	test_init();
	signal(SIGSEGV, fault);
	code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(code, machine_code, sizeof(machine_code));
	CHECK(!mprotect(code, PAGE, PROT_READ | PROT_EXEC));
	fd = test_file("readonly", 4 * PAGE, 1);
	file = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(file != MAP_FAILED);
	close(fd);
	test_fill(file + PAGE, PAGE, 50);
	CHECK(!mprotect(file, 4 * PAGE, PROT_READ));
	/* The program's own constants, as a linker does with relocations. */
	CHECK(!mprotect((void *)(constant + PAGE), PAGE, PROT_READ | PROT_WRITE));
	test_fill((void *)(constant + PAGE), PAGE, 60);
	CHECK(!mprotect((void *)(constant + PAGE), PAGE, PROT_READ));
	mixed = mmap(NULL, 9 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	test_fill(mixed, 9 * PAGE, 70);
	for (int i = 0; i < 9; i++)
		CHECK(!mprotect(mixed + i * PAGE, PAGE, i & 7));

	test_wait();
	if (test_break(1))
		mprotect(file, 4 * PAGE, PROT_READ | PROT_WRITE);
	CHECK_EQUAL(((int (*)(void))code)(), 42);
	CHECK(!writable(code));
	CHECK_FILLED(file + PAGE, PAGE, 50);
	CHECK(!writable(file + PAGE) && !writable(file));
	CHECK_FILLED(constant + PAGE, PAGE, 60);
	CHECK(!writable((char *)constant + PAGE) && !strcmp(constant, "constant"));
	for (int i = 0; i < 9; i++) {
		char line[256];

		test_map(mixed + i * PAGE, line, sizeof(line));
		line[strcspn(line, " ") + 4] = 0;
		CHECKF(line[strcspn(line, " ") + 1] == (i & 1 ? 'r' : '-') &&
			       line[strcspn(line, " ") + 2] == (i & 2 ? 'w' : '-') &&
			       line[strcspn(line, " ") + 3] == (i & 4 ? 'x' : '-'),
		       "page %d is mapped %s", i, line);
	}
	CHECK(!mprotect(mixed, 9 * PAGE, PROT_READ));
	CHECK_FILLED(mixed, 9 * PAGE, 70);
	test_pass();
}
