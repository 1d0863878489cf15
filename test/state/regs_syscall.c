/* SPDX-License-Identifier: Apache-2.0 */
/* Registers of tasks that wait in a system call: nothing but rax, rcx and r11 may change. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS	     4
/* A pointer whose lower half would do as the number of a clock: this is no clock_nanosleep(2). */
#define LIKE_A_CLOCK 0x700080000000

static volatile pid_t tids[THREADS];

struct state {
	uint64_t reg[12];
	unsigned char xmm[16][16];
};

#define X(i)   "movups 96+16*" #i "(%%r15), %%xmm" #i "\n"
#define Y(i)   "movups %%xmm" #i ", 96+16*" #i "(%%r15)\n"
#define ALL(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15)

/* In: rdi, rsi, rdx, r10, r8, r9, rbx, rbp, r12, r13, r14; what the call returned in the last. */
static void call(long nr, struct state *in, struct state *out)
{
	/* Inputs that the assembly overwrites. */
	struct state *rbx = in, *rcx = out;

	asm volatile("push %%rbp\n"
		     "push %%rcx\n"
		     "mov %%rbx, %%r15\n"
		     "mov 0(%%r15), %%rdi\n"
		     "mov 8(%%r15), %%rsi\n"
		     "mov 16(%%r15), %%rdx\n"
		     "mov 24(%%r15), %%r10\n"
		     "mov 32(%%r15), %%r8\n"
		     "mov 40(%%r15), %%r9\n"
		     "mov 48(%%r15), %%rbx\n"
		     "mov 56(%%r15), %%rbp\n"
		     "mov 64(%%r15), %%r12\n"
		     "mov 72(%%r15), %%r13\n"
		     "mov 80(%%r15), %%r14\n" ALL(X) "syscall\n"
						     "pop %%r15\n"
						     "mov %%rdi, 0(%%r15)\n"
						     "mov %%rsi, 8(%%r15)\n"
						     "mov %%rdx, 16(%%r15)\n"
						     "mov %%r10, 24(%%r15)\n"
						     "mov %%r8, 32(%%r15)\n"
						     "mov %%r9, 40(%%r15)\n"
						     "mov %%rbx, 48(%%r15)\n"
						     "mov %%rbp, 56(%%r15)\n"
						     "mov %%r12, 64(%%r15)\n"
						     "mov %%r13, 72(%%r15)\n"
						     "mov %%r14, 80(%%r15)\n"
						     "mov %%rax, 88(%%r15)\n" ALL(Y) "pop %%rbp\n"
		     : "+a"(nr), "+b"(rbx), "+c"(rcx)
		     :
		     : "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
		       "memory", "cc");
}

static void check(const struct state *in, const struct state *out, long result)
{
	CHECK_EQUAL(out->reg[11], result);
	for (int i = 0; i < 11; i++)
		CHECKF(in->reg[i] == out->reg[i], "register %d is %llx, was %llx", i,
		       (long long)out->reg[i], (long long)in->reg[i]);
	CHECK(!memcmp(in->xmm, out->xmm, sizeof(in->xmm)));
}

static int ends[2];

static void *run(void *arg)
{
	struct timespec own, *time = &own;
	struct state in, out;
	int i = (int)(intptr_t)arg, word = 5;
	double begin = test_now();
	long nr, result = 0;
	char c = 0;

	if (i == 3)
		time = mmap((void *)LIKE_A_CLOCK, 4096, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(time != MAP_FAILED);
	*time = (struct timespec){0, 300 * 1000 * 1000};
	test_fill(&in, sizeof(in), i);
	if (i == 0) {
		nr = SYS_read;
		in.reg[0] = ends[0];
		in.reg[1] = (uintptr_t)&c;
		in.reg[2] = result = 1;
	} else if (i == 1 || i == 3) {
		nr = SYS_nanosleep; /* -ERESTART_RESTARTBLOCK at a stop */
		in.reg[0] = (uintptr_t)time;
		in.reg[1] = 0;
	} else {
		nr = SYS_futex; /* wait for a word that nobody wakes, with a time-out */
		in.reg[0] = (uintptr_t)&word;
		in.reg[1] = 128;
		in.reg[2] = 5;
		in.reg[3] = (uintptr_t)time;
		result = -ETIMEDOUT;
	}
	tids[i] = syscall(SYS_gettid);
	call(nr, &in, &out);
	if (test_break(1))
		out.xmm[7][3] ^= 1;
	check(&in, &out, result);
	if (i)
		CHECKF(test_now() - begin >= 0.3, "returned after %f s", test_now() - begin);
	return NULL;
}

static void start(pthread_t *thread, int i, long nr)
{
	CHECK(!pthread_create(thread, NULL, run, (void *)(intptr_t)i));
	while (!tids[i])
		usleep(100);
	test_until_in(tids[i], nr);
}

/* From now on the sleep is a restart_syscall(2). */
static int stop_for_a_moment(void *arg)
{
	pid_t pid = getppid();

	CHECK(!kill(pid, SIGSTOP));
	test_until_state(pid, 'T');
	CHECK(!kill(pid, SIGCONT));
	return 0;
}

int main(void)
{
	pthread_t threads[THREADS];

	test_init();
	CHECK(!pipe(ends));
	start(&threads[3], 3, SYS_nanosleep);
	test_reap(test_fork(stop_for_a_moment, NULL), 0);
	start(&threads[0], 0, SYS_read);
	start(&threads[1], 1, SYS_nanosleep);
	start(&threads[2], 2, SYS_futex);
	test_wait();
	CHECK_EQUAL(write(ends[1], "x", 1), 1);
	for (int i = 0; i < THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	test_pass();
}
