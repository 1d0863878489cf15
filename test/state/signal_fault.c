/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that fault all the time, so that some are stopped between the fault and its handler; and
 * a child that job control has stopped there. Every fault is handled once, and the handler is told
 * what the processor said.
 */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define THREADS	      8
#define PAGE_FAULT    14
#define BREAKPOINT    3
#define WRITE_BY_USER 6 /* whether the page was there is another bit */

static char *readonly;
static atomic_bool ends;
static __thread volatile unsigned long faults;
static __thread volatile bool odd;

/* mov byte [rax], 1 */
#define STORE_SIZE 3
static void store(void)
{
	__asm__ volatile(".byte 0xc6, 0x00, 0x01" : : "a"(readonly) : "memory");
}

static void on_segv(int sig, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	faults++;
	if (info->si_code != SEGV_ACCERR || info->si_addr != readonly ||
	    regs[REG_TRAPNO] != PAGE_FAULT || (regs[REG_ERR] & WRITE_BY_USER) != WRITE_BY_USER ||
	    regs[REG_CR2] != (greg_t)readonly)
		odd = true;
	regs[REG_RIP] += STORE_SIZE;
}

static void on_trap(int sig, siginfo_t *info, void *context)
{
	faults++;
	if (((ucontext_t *)context)->uc_mcontext.gregs[REG_TRAPNO] != BREAKPOINT)
		odd = true;
}

static void *thread(void *arg)
{
	unsigned long done = 0;

	while (!ends) {
		if (arg)
			__asm__ volatile("int3");
		else
			store();
		done++;
	}
	if (test_break(1))
		done++;
	if (test_break(2))
		odd = true;
	CHECK_EQUAL(faults, done);
	CHECK(!odd);
	return NULL;
}

static int faulting_child(void *arg)
{
	CHECK(!raise(SIGSTOP));
	store();
	/* Job control does not keep what the processor said: see doc/limits.md. */
	return faults == 1 ? 7 : 8;
}

static void set_mask(pid_t pid, uint64_t mask)
{
	CHECK(!ptrace(PTRACE_SETSIGMASK, pid, sizeof(mask), &mask));
}

/* Lets it go on with that signal, and with all that come, until it stops for the one that is
 * wanted. */
static void go_on_until(pid_t pid, long signal, int wanted)
{
	int status;

	do {
		CHECK(!ptrace(PTRACE_CONT, pid, NULL, signal));
		CHECK_EQUAL(waitpid(pid, &status, 0), pid);
		CHECKF(WIFSTOPPED(status), "status %#x", status);
		signal = status >> 16 ? 0 : WSTOPSIG(status);
	} while (WSTOPSIG(status) != wanted);
}

/* A child that is stopped, and has the signal of its fault pending. */
static pid_t stopped_in_fault(void)
{
	pid_t pid = test_fork(faulting_child, NULL);

	test_until_state(pid, 'T');
	CHECK(!ptrace(PTRACE_SEIZE, pid, NULL, NULL));
	CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
	CHECK(!kill(pid, SIGCONT));
	go_on_until(pid, 0, SIGSEGV);
	/* Blocked, it goes back into the queue. */
	set_mask(pid, 1UL << (SIGSEGV - 1));
	CHECK(!kill(pid, SIGSTOP));
	go_on_until(pid, SIGSEGV, SIGSTOP);
	CHECK(!ptrace(PTRACE_CONT, pid, NULL, SIGSTOP));
	CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
	set_mask(pid, 0);
	CHECK(!ptrace(PTRACE_DETACH, pid, NULL, NULL));
	test_until_state(pid, 'T');
	return pid;
}

int main(void)
{
	struct sigaction segv = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
	struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
	pthread_t threads[THREADS];
	pid_t pid;

	test_init();
	readonly = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	CHECK(readonly != MAP_FAILED);
	CHECK(!sigaction(SIGSEGV, &segv, NULL) && !sigaction(SIGTRAP, &trap, NULL));
	pid = stopped_in_fault();
	for (long i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, thread, (void *)(i % 4 / 3)));
	test_wait();
	ends = true;
	for (int i = 0; i < THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	CHECK_EQUAL(test_state(pid), 'T');
	CHECK(!kill(pid, SIGCONT));
	test_reap(pid, 7);
	test_pass();
}
