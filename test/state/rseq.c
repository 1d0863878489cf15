/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restartable sequences: libc's registration is there, and a critical section in which
 * the checkpoint came is aborted, or goes on as one, never as plain code.
 */
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int spinning;
static volatile int rseq_test_go;
/* struct rseq_cs, whose addresses have 64 bits in any program. */
extern char rseq_test_section __attribute__((visibility("hidden")));
#ifdef __x86_64__
#define PLACE(what) ".quad " what "\n"
#else
#define PLACE(what) ".long " what ", 0\n"
#endif
static long aborts, bad, good;

static struct rseq *area(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/* 0: came out by the end, 1: aborted, 2: in the section, and the kernel did not know. */
static int section(struct rseq *rseq)
{
	int result;

	asm volatile(".pushsection __rseq_cs, \"aw\"\n"
		     ".balign 32\n"
		     "rseq_test_section: .long 0, 0\n" PLACE("1f") PLACE("2f - 1f")
			     PLACE("4f") ".popsection\n"
					 "mov %2, 8(%1)\n"
					 "1:\n"
					 "movl $2, %0\n"
					 "6: cmpl $0, 8(%1)\n"
					 "je 5f\n"
					 "cmpl $0, (%3)\n"
					 "je 6b\n"
					 "movl $0, %0\n"
					 "2: jmp 5f\n"
					 ".long 0x53053053\n"
					 "4: movl $1, %0\n"
					 "5:\n"
		     : "=&r"(result)
		     : "r"(rseq), "r"(&rseq_test_section), "r"(&rseq_test_go)
		     : "memory", "cc");
	return result;
}

static void *run(void *arg)
{
	while (!rseq_test_go) {
		spinning = 1;
		switch (section(area())) {
		case 0:
			good++;
			break;
		case 1:
			aborts++;
			break;
		default:
			bad++;
		}
	}
	return NULL;
}

static void check_registered(void)
{
	struct rseq *rseq = area();
	cpu_set_t all, one;
	int matched = 0;

	CHECK_EQUAL(sched_getaffinity(0, sizeof(all), &all), 0);
	for (int cpu = 0; cpu < 64; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		CHECK(!sched_setaffinity(0, sizeof(one), &one));
		CHECK_EQUAL(*(volatile unsigned int *)&rseq->cpu_id, cpu);
		CHECK_EQUAL(sched_getcpu(), cpu);
		matched++;
	}
	CHECK(matched > 0);
	CHECK(!sched_setaffinity(0, sizeof(all), &all));
}

static void *later(void *arg)
{
	check_registered();
	return NULL;
}

int main(void)
{
	pthread_t thread, other;

	test_init();
	if (!__rseq_size)
		test_skip("libc has no restartable sequences registered");
	check_registered();
	CHECK(!pthread_create(&thread, NULL, run, NULL));
	while (!spinning)
		usleep(1000);
	test_wait();
	if (test_break(1))
		syscall(SYS_rseq, area(), 32, 1, 0x53053053);
	check_registered();
	test_sleep(0.02);
	rseq_test_go = 1;
	CHECK(!pthread_join(thread, NULL));
	CHECKF(bad == 0,
	       "%ld critical sections went on without the kernel's knowledge (%ld aborts)", bad,
	       aborts);
	CHECK(!pthread_create(&other, NULL, later, NULL));
	CHECK(!pthread_join(other, NULL));
	test_pass();
}
