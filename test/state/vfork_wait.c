/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A parent in vfork(), by the call of that name and by clone() as posix_spawn() uses it. Its child
 * is held up before it calls exec, and has changed by then what is its own.
 *
 * may-refuse: task-vfork
 */
#include "harness.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xmmintrin.h>

struct state {
	uint64_t reg[12];
	unsigned char xmm[16][16];
	uint32_t mxcsr;
	uint16_t x87;
};

/* Its address is in a global, since the child has the registers but no stack that it may use. */
struct shared {
	pid_t pids[2];
	int executes;
};
static struct shared *shared;
static char stacks[2][65536] __attribute__((aligned(64)));
static volatile int which; /* of the two parents */

static int child(void *arg);

__attribute__((noreturn, used)) static void run_child(void)
{
	child(NULL);
	_exit(99);
}

#define X(i)   "movups 96+16*" #i "(%%r15), %%xmm" #i "\n"
#define Y(i)   "movups %%xmm" #i ", 96+16*" #i "(%%r15)\n"
#define ALL(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15)

/*
 * As call() of regs_syscall.c, for calls that return twice. In: rdi, rsi, rdx, r10, r8, r9, rbx,
 * rbp, r12, r13, r14; what the call returned in the last.
 */
static void call(long nr, struct state *in, struct state *out, void *stack)
{
	struct state *rbx = in, *rcx = out;

	asm volatile("push %%rbp\n"
		     "push %%rax\n"
		     "push %%rcx\n"
		     "mov %%rdx, child_stack(%%rip)\n"
		     "mov %%rbx, %%r15\n"
		     "ldmxcsr 352(%%r15)\n"
		     "fldcw 356(%%r15)\n"
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
						     "test %%rax, %%rax\n"
						     "jnz 1f\n"
						     "mov child_stack(%%rip), %%rsp\n"
						     "call run_child\n"
						     "1: pop %%r15\n"
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
						     "mov %%rax, 88(%%r15)\n" ALL(
							     Y) "stmxcsr 352(%%r15)\n"
								"fnstcw 356(%%r15)\n"
								"pop %%rax\n"
								"pop %%rbp\n"
		     : "+a"(nr), "+b"(rbx), "+c"(rcx), "+d"(stack)
		     :
		     : "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory",
		       "cc");
}

/* Named in the assembly. */
void *child_stack;

static void never(int sig)
{
}

/* All of it is the child's own: a copy, or by CLONE_VM alone. */
static int child(void *arg)
{
	struct sigaction sa = {.sa_handler = SIG_DFL};
	sigset_t set;

	shared->pids[which] = syscall(SYS_getpid);
	_mm_setcsr(_MM_MASK_MASK);
	asm volatile("fninit");
	asm volatile("xorps %%xmm6, %%xmm6\n"
		     "xorps %%xmm7, %%xmm7" ::
			     : "xmm6", "xmm7");
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGUSR2, &sa, NULL);
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	close(40);
	umask(0);
	prctl(PR_SET_NAME, "in_vfork");
	setpgid(0, 0);
	test_hold();
	sigemptyset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	shared->executes++;
	execl("/bin/sh", "sh", "-c", which ? "exit 11" : "exit 10", NULL);
	_exit(1);
}

/* What the parent has and the child does not, or not any more. */
static void set_up(void)
{
	const struct itimerval alarm = {.it_value = {.tv_sec = 100000}};
	stack_t ss = {.ss_sp = stacks[which] + 1024, .ss_size = 16384};
	struct sigaction sa = {.sa_handler = never, .sa_flags = SA_RESTART};
	struct rlimit limit = {61, 62};
	sigset_t set;

	CHECK(!sigaction(SIGUSR1, &sa, NULL));
	signal(SIGUSR2, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	CHECK(!sigprocmask(SIG_SETMASK, &set, NULL));
	CHECK(!sigaltstack(&ss, NULL));
	CHECK(!setitimer(ITIMER_REAL, &alarm, NULL));
	CHECK(!prctl(PR_SET_CHILD_SUBREAPER, 1));
	CHECK(!prctl(PR_SET_TIMERSLACK, 77777));
	CHECK(!prctl(PR_SET_PDEATHSIG, SIGTERM));
	CHECK(!prctl(PR_SET_NAME, "waits"));
	CHECK_EQUAL(dup2(2, 40), 40);
	CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
	umask(027);
}

static void check_signals(void)
{
	struct sigaction sa;
	stack_t ss;
	sigset_t set;

	CHECK(!sigaction(SIGUSR1, NULL, &sa));
	CHECK(sa.sa_handler == (test_break(2) ? SIG_DFL : never));
	CHECK(sa.sa_flags & SA_RESTART);
	CHECK(!sigaction(SIGUSR2, NULL, &sa));
	CHECK(sa.sa_handler == SIG_IGN);
	CHECK(!sigprocmask(SIG_SETMASK, NULL, &set));
	CHECK(sigismember(&set, SIGHUP) && !sigismember(&set, SIGTERM));
	CHECK(!sigaltstack(NULL, &ss));
	CHECK(ss.ss_sp == stacks[which] + 1024 && ss.ss_size == 16384);
}

static void check_settings(void)
{
	struct itimerval alarm;
	struct rlimit limit;
	int value, rseq;
	char name[16];

	CHECK(!getitimer(ITIMER_REAL, &alarm));
	CHECKF(alarm.it_value.tv_sec > 70000, "%ld s", (long)alarm.it_value.tv_sec);
	CHECK(!prctl(PR_GET_CHILD_SUBREAPER, &value));
	CHECK_EQUAL(value, 1);
	CHECK(!prctl(PR_GET_PDEATHSIG, &value));
	CHECK_EQUAL(value, test_break(3) ? 0 : SIGTERM);
	CHECK_EQUAL(prctl(PR_GET_TIMERSLACK), 77777);
	CHECK(!prctl(PR_GET_NAME, name));
	CHECK(!strcmp(name, "waits"));
	CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
	CHECK(limit.rlim_cur == 61 && limit.rlim_max == 62);
	CHECK_EQUAL(umask(0), 027);
	CHECK(!close(40));
	/* The C library has registered one for each thread; a second one is refused as such. */
	rseq = (int)syscall(SYS_rseq, stacks[which], 32, 0, 0x53053053);
	CHECKF(rseq < 0 && (errno == EINVAL || errno == ENOSYS), "rseq: %d, errno %d", rseq, errno);
}

static void check_registers(const struct state *in, const struct state *out)
{
	CHECK_EQUAL(out->reg[11], shared->pids[which] + !!test_break(1));
	for (int i = 0; i < 11; i++)
		CHECKF(in->reg[i] == out->reg[i], "register %d is %llx, was %llx", i,
		       (long long)out->reg[i], (long long)in->reg[i]);
	for (int i = 0; i < 16; i++)
		CHECKF(!memcmp(in->xmm[i], out->xmm[i], 16), "xmm%d", i);
	CHECK_EQUAL(out->mxcsr & ~0x3fu, in->mxcsr + (test_break(4) ? 0x2000 : 0));
	CHECK_EQUAL(out->x87, in->x87);
}

static int parent(void *arg)
{
	struct state in, out;
	int i = (int)(intptr_t)arg;
	long nr = SYS_vfork;

	which = i;
	set_up();
	test_fill(&in, sizeof(in), i);
	in.mxcsr = _MM_MASK_MASK | _MM_ROUND_TOWARD_ZERO;
	in.x87 = 0x0e7f; /* towards zero, 53 bits */
	if (i) {
		nr = SYS_clone;
		in.reg[0] = CLONE_VM | CLONE_VFORK | SIGCHLD;
		in.reg[1] = (uintptr_t)stacks[i] + sizeof(stacks[i]);
		in.reg[2] = in.reg[3] = in.reg[4] = 0;
	}
	call(nr, &in, &out, stacks[i] + sizeof(stacks[i]));
	_mm_setcsr(_MM_MASK_MASK);
	asm volatile("fninit");
	check_registers(&in, &out);
	check_signals();
	check_settings();
	CHECK_EQUAL(getpgid(shared->pids[i]), shared->pids[i]);
	test_reap(shared->pids[i], 10 + i);
	return 6;
}

int main(void)
{
	pid_t pids[2];

	test_init();
	shared = test_shared(4096);
	for (int i = 0; i < 2; i++) {
		pids[i] = test_fork(parent, (void *)(intptr_t)i);
		while (!*(volatile pid_t *)&shared->pids[i])
			usleep(1000);
		test_until_state(pids[i], 'D');
		test_until_in(shared->pids[i], SYS_clock_nanosleep);
	}
	test_wait();
	for (int i = 0; i < 2; i++)
		test_reap(pids[i], 6);
	CHECK_EQUAL(shared->executes, 2);
	test_pass();
}
