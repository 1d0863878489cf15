/* SPDX-License-Identifier: Apache-2.0 */
/* A program with a child that does something of another width than the program: what, the argument
 * says. */
#include "harness.h"

#include <asm/ldt.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CODE_32	 0x23 /* __USER32_CS */
#define CODE_64	 0x33 /* __USER_CS */
#define CODE_OWN 7    /* the first of the local descriptor table */

/* Where code of either width can count. */
static struct {
	unsigned char code[64];
	volatile int count;
} * page;

/* incl (%ebx) or (%rbx); jmp to itself */
static const unsigned char counting[] = {0xff, 0x03, 0xeb, 0xfc};

static void go_to(long segment)
{
#ifdef __x86_64__
	/* 64-bit code has no segment of data: __USER_DS */
	asm volatile("mov %3, %%ds\n"
		     "push %0\n"
		     "push %1\n"
		     "lretq\n"
		     :
		     : "r"(segment), "r"(page->code), "b"(&page->count), "r"(0x2b)
		     : "memory");
#else
	asm volatile("push %0\n"
		     "push %1\n"
		     "lret\n"
		     :
		     : "r"(segment), "r"(page->code), "b"(&page->count)
		     : "memory");
#endif
}

static void go_to_own(void)
{
	struct user_desc code = {.limit = 0xfffff,
				 .seg_32bit = 1,
				 .contents = MODIFY_LDT_CONTENTS_CODE,
				 .limit_in_pages = 1,
				 .useable = 1};

	CHECK(syscall(SYS_modify_ldt, 1, &code, sizeof(code)) == 0);
	go_to(CODE_OWN);
}

/* pause() by the number that it has for 32-bit programs. */
static void wait_as_narrow(void)
{
	long r;

	page->count = 1;
	asm volatile("int $0x80" : "=a"(r) : "a"(29L) : "memory");
}

static void hold_ring(void)
{
	struct io_uring_params params = {};

	CHECK(syscall(425 /* io_uring_setup */, 4, &params) >= 0);
	page->count = 1;
	for (;;)
		pause();
}

static int child(void *arg)
{
	const char *what = arg;

	if (!strcmp(what, "code"))
		go_to(sizeof(long) == 8 ? CODE_32 : CODE_64);
	else if (!strcmp(what, "segment"))
		go_to_own();
	else if (!strcmp(what, "call"))
		wait_as_narrow();
	else if (!strcmp(what, "ring"))
		hold_ring();
	return 1;
}

int main(int argc, char **argv)
{
	int was, status;
	pid_t pid;

	test_init();
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		    MAP_SHARED | MAP_ANONYMOUS | (sizeof(long) == 8 ? 0x40 /* MAP_32BIT */ : 0), -1,
		    0);
	CHECK(page != MAP_FAILED);
	memcpy(page->code, counting, sizeof(counting));
	pid = test_fork(child, argv[1]);
	while (!page->count && waitpid(pid, &status, WNOHANG) == 0)
		usleep(1000);
	if (!page->count)
		test_skip("this kernel does not run such code");
	test_wait();
	was = page->count;
	while (page->count == was && was != 1)
		usleep(1000);
	CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
	CHECKF(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "it ended by itself: %x",
	       status);
	test_pass();
}
