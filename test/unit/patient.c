/* SPDX-License-Identifier: Apache-2.0 */
#include "patient.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NAP_NS	 3000000
#define NAP_MS	 3
#define WELL_MS	 3000
#define ALTSTACK 16384

static struct patient *me; /* in the patient itself */
static bool gentle;	   /* it leaves the processors to others now and then */
static int ping[2], pong[2];
static _Thread_local volatile bool interrupted;

static void complain(const char *what, long a, long b)
{
	if (atomic_exchange(&me->failed, true))
		return;
	snprintf(me->failure, sizeof(me->failure), "%s: %ld, %ld", what, a, b);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/*
 * Fills all registers with values that depend on the seed, spins, and compares
 * them. Returns 0, or the number of the first that differs.
 */
long spin_with_registers(uint64_t seed, uint64_t turns);
asm(".text\n"
    ".globl spin_with_registers\n"
    "spin_with_registers:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "push %rdi; push %rsi\n"
    /* eight vector registers hold copies of what eight others are compared with */
    "vmovq %rdi, %xmm0; vpbroadcastq %xmm0, %ymm0\n"
    "vpaddq %ymm0, %ymm0, %ymm1; vpaddq %ymm1, %ymm0, %ymm2; vpaddq %ymm2, %ymm0, %ymm3\n"
    "vpaddq %ymm3, %ymm0, %ymm4; vpaddq %ymm4, %ymm0, %ymm5; vpaddq %ymm5, %ymm0, %ymm6\n"
    "vpaddq %ymm6, %ymm0, %ymm7\n"
    "vmovdqa %ymm0, %ymm8; vmovdqa %ymm1, %ymm9; vmovdqa %ymm2, %ymm10; vmovdqa %ymm3, %ymm11\n"
    "vmovdqa %ymm4, %ymm12; vmovdqa %ymm5, %ymm13; vmovdqa %ymm6, %ymm14; vmovdqa %ymm7, %ymm15\n"
    "mov %rsi, %rcx\n"
    "lea 1(%rdi), %rax; lea 2(%rdi), %rbx; lea 3(%rdi), %rdx; lea 4(%rdi), %rbp\n"
    "lea 5(%rdi), %rsi; lea 6(%rdi), %r8; lea 7(%rdi), %r9; lea 8(%rdi), %r10\n"
    "lea 9(%rdi), %r11; lea 10(%rdi), %r12; lea 11(%rdi), %r13; lea 12(%rdi), %r14\n"
    "lea 13(%rdi), %r15\n"
    /* the red zone belongs to us as well */
    "mov %rdi, -8(%rsp); mov %rdi, -128(%rsp)\n"
    "1: dec %rcx; jnz 1b\n"
    "mov $1, %ecx; sub %rdi, %rax; cmp $1, %rax; jne 2f\n"
    "inc %ecx; sub %rdi, %rbx; cmp $2, %rbx; jne 2f\n"
    "inc %ecx; sub %rdi, %rdx; cmp $3, %rdx; jne 2f\n"
    "inc %ecx; sub %rdi, %rbp; cmp $4, %rbp; jne 2f\n"
    "inc %ecx; sub %rdi, %rsi; cmp $5, %rsi; jne 2f\n"
    "inc %ecx; sub %rdi, %r8; cmp $6, %r8; jne 2f\n"
    "inc %ecx; sub %rdi, %r9; cmp $7, %r9; jne 2f\n"
    "inc %ecx; sub %rdi, %r10; cmp $8, %r10; jne 2f\n"
    "inc %ecx; sub %rdi, %r11; cmp $9, %r11; jne 2f\n"
    "inc %ecx; sub %rdi, %r12; cmp $10, %r12; jne 2f\n"
    "inc %ecx; sub %rdi, %r13; cmp $11, %r13; jne 2f\n"
    "inc %ecx; sub %rdi, %r14; cmp $12, %r14; jne 2f\n"
    "inc %ecx; sub %rdi, %r15; cmp $13, %r15; jne 2f\n"
    "inc %ecx; cmp %rdi, -8(%rsp); jne 2f\n"
    "inc %ecx; cmp %rdi, -128(%rsp); jne 2f\n"
    "inc %ecx; cmp 8(%rsp), %rdi; jne 2f\n"
    "mov $100, %ecx\n"
    "vmovq %xmm0, %rax; cmp %rdi, %rax; jne 2f\n"
    "vpcmpeqq %ymm0, %ymm8, %ymm8; vpcmpeqq %ymm1, %ymm9, %ymm9; vpand %ymm8, %ymm9, %ymm9\n"
    "vpcmpeqq %ymm2, %ymm10, %ymm10; vpand %ymm9, %ymm10, %ymm10\n"
    "vpcmpeqq %ymm3, %ymm11, %ymm11; vpand %ymm10, %ymm11, %ymm11\n"
    "vpcmpeqq %ymm4, %ymm12, %ymm12; vpand %ymm11, %ymm12, %ymm12\n"
    "vpcmpeqq %ymm5, %ymm13, %ymm13; vpand %ymm12, %ymm13, %ymm13\n"
    "vpcmpeqq %ymm6, %ymm14, %ymm14; vpand %ymm13, %ymm14, %ymm14\n"
    "vpcmpeqq %ymm7, %ymm15, %ymm15; vpand %ymm14, %ymm15, %ymm15\n"
    /* which all could be zero */
    "vmovq %rdi, %xmm8; vpbroadcastq %xmm8, %ymm8\n"
    "vpcmpeqq %ymm0, %ymm8, %ymm8; vpand %ymm8, %ymm15, %ymm15\n"
    "vpmovmskb %ymm15, %eax; inc %ecx; cmp $-1, %eax; jne 2f\n"
    "xor %ecx, %ecx\n"
    "2: mov %rcx, %rax\n"
    "vzeroupper\n"
    "add $16, %rsp\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "ret\n");

static void set_mxcsr(uint32_t v)
{
	asm volatile("ldmxcsr %0" : : "m"(v));
}

static uint32_t get_mxcsr(void)
{
	uint32_t v;

	asm volatile("stmxcsr %0" : "=m"(v));
	return v;
}

static uint64_t get_mask(void)
{
	uint64_t mask = 0;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &mask, 8);
	return mask;
}

void patient_interrupted(void)
{
	interrupted = true;
}

/* A call that has to take its time and end with `want`, -errno or a result. */
static void expect(const char *what, int64_t since, int64_t ns, long got, long want)
{
	int64_t took = now_ns() - since;

	if (interrupted) {
		interrupted = false;
		return;
	}
	if (got != want)
		complain(what, got, want);
	if (took < ns)
		complain(what, took, ns);
}

static long err(long r)
{
	return r < 0 ? -errno : r;
}

static void spin(unsigned int i)
{
	static const uint32_t modes[] = {0x1f80, 0x3f80, 0x5f80, 0x9fc0};
	uint32_t mode = modes[me->rounds[i] % 4];
	long bad;

	set_mxcsr(mode);
	errno = 1234;
	bad = spin_with_registers(0x0123456789abULL * (me->rounds[i] + 1), 20000);
	if (bad)
		complain("register", bad, 0);
	if (get_mxcsr() != mode)
		complain("mxcsr", get_mxcsr(), mode);
	if (errno != 1234)
		complain("errno", errno, 1234);
	if (gentle)
		usleep(150);
}

static void nap(unsigned int i)
{
	struct timespec ts = {0, NAP_NS}, rest;
	int64_t t = now_ns();

	expect("nanosleep", t, NAP_NS, err(syscall(SYS_nanosleep, &ts, NULL)), 0);
	t = now_ns();
	expect("clock_nanosleep", t, NAP_NS,
	       err(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ts, &rest)), 0);
}

static void nap_until(unsigned int i)
{
	int64_t t = now_ns(), until = t + NAP_NS;
	struct timespec ts = {until / 1000000000, until % 1000000000};

	expect("clock_nanosleep until", t, NAP_NS,
	       err(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL)), 0);
}

static void poll_nap(unsigned int i)
{
	int64_t t = now_ns();
	struct timespec ts = {0, NAP_NS};

	expect("poll", t, NAP_NS, err(poll(NULL, 0, NAP_MS)), 0);
	t = now_ns();
	expect("ppoll", t, NAP_NS, err(ppoll(NULL, 0, &ts, NULL)), 0);
}

static void futex_nap(unsigned int i)
{
	static uint32_t word;
	struct timespec ts = {0, NAP_NS};
	int64_t t = now_ns();

	expect("futex", t, NAP_NS,
	       err(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &ts, NULL, 0)), -ETIMEDOUT);
}

static void epoll_nap(unsigned int i)
{
	static int fd = -1;
	struct epoll_event ev;
	int64_t t = now_ns();

	if (fd < 0)
		fd = epoll_create1(0);
	expect("epoll_wait", t, NAP_NS, err(epoll_wait(fd, &ev, 1, NAP_MS)), 0);
	t = now_ns();
	expect("epoll_pwait", t, NAP_NS, err(epoll_pwait(fd, &ev, 1, NAP_MS, &(sigset_t){})), 0);
}

static void signal_nap(unsigned int i)
{
	uint64_t set = 1ULL << (SIGUSR1 - 1);
	struct timespec ts = {0, NAP_NS};
	int64_t t = now_ns();

	expect("rt_sigtimedwait", t, NAP_NS, err(syscall(SYS_rt_sigtimedwait, &set, NULL, &ts, 8)),
	       -EAGAIN);
}

static void select_nap(unsigned int i)
{
	struct timeval tv = {0, NAP_NS / 1000};
	int64_t t = now_ns();

	expect("select", t, NAP_NS, err(select(0, NULL, NULL, NULL, &tv)), 0);
}

static void receive_nap(unsigned int i)
{
	static int pair[2] = {-1, -1};
	struct timeval tv = {0, NAP_NS / 1000};
	int64_t t;
	char c;

	if (pair[0] < 0) {
		socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
		setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	}
	t = now_ns();
	/* This time-out is counted in ticks, which come late and then all at once where others have
	 * the processor of a virtual machine: it may be over early. */
	expect("recv", t, 0, err(recv(pair[0], &c, 1, 0)), -EAGAIN);
}

/* Blocks without a time-out: what it waits for comes from another thread. */
static void play_ping(unsigned int i)
{
	char c = (char)me->rounds[i], back = 0;

	expect("write", 0, 0, err(write(ping[1], &c, 1)), 1);
	expect("read", 0, 0, err(read(pong[0], &back, 1)), 1);
	if (c != back)
		complain("pipe", c, back);
	expect("nap", 0, 0, err(usleep(500)), 0);
}

static void play_pong(unsigned int i)
{
	struct pollfd p = {ping[0], POLLIN, 0};
	char c;

	expect("endless poll", 0, 0, err(poll(&p, 1, -1)), 1);
	expect("read", 0, 0, err(read(ping[0], &c, 1)), 1);
	expect("write", 0, 0, err(write(pong[1], &c, 1)), 1);
}

static void (*const jobs[])(unsigned int) = {
	spin,	   nap,	       futex_nap, poll_nap,  epoll_nap,	  signal_nap,
	nap_until, select_nap, play_ping, play_pong, receive_nap,
};

static void *work(void *arg)
{
	unsigned int i = (unsigned int)(uintptr_t)arg;
	stack_t ss = {.ss_sp = malloc(ALTSTACK), .ss_size = ALTSTACK}, now;
	/* Some threads block all that could be of use to an agent. */
	uint64_t mask = i % 3 == 2 ? ~0ULL & ~(1ULL << (SIGKILL - 1)) & ~(1ULL << (SIGSTOP - 1))
				   : 1ULL << (SIGUSR1 - 1) | 1ULL << (40 + i);

	sigaltstack(&ss, NULL);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
	while (!me->quit) {
		jobs[i](i);
		if (get_mask() != mask)
			complain("mask", (long)get_mask(), (long)mask);
		sigaltstack(NULL, &now);
		if (now.ss_sp != ss.ss_sp || now.ss_size != ss.ss_size || now.ss_flags)
			complain("altstack", (long)now.ss_sp, (long)ss.ss_sp);
		me->rounds[i]++;
	}
	_exit(0);
}

static void run_patient(void)
{
	pthread_t t;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pipe(ping) < 0 || pipe(pong) < 0)
		_exit(1);
	for (unsigned int i = 1; i < me->nthreads; i++)
		if (pthread_create(&t, NULL, work, (void *)(uintptr_t)i))
			_exit(1);
	work(NULL);
}

static unsigned int thread_count(enum patient_size size)
{
	return size == PATIENT_SMALL ? 3 : sizeof(jobs) / sizeof(*jobs);
}

struct patient *patient_inhabit(enum patient_size size)
{
	struct patient *p =
		mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_t t;

	if (p == MAP_FAILED || pipe(ping) < 0 || pipe(pong) < 0)
		return NULL;
	me = p;
	gentle = true;
	p->pid = getpid();
	p->nthreads = thread_count(size);
	for (unsigned int i = 0; i < p->nthreads; i++)
		if (pthread_create(&t, NULL, work, (void *)(uintptr_t)i))
			return NULL;
	return p;
}

struct patient *patient_start(enum patient_size size)
{
	struct patient *p =
		mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	if (p == MAP_FAILED)
		return NULL;
	p->nthreads = thread_count(size);
	pid = fork();
	if (pid == 0) {
		me = p;
		run_patient();
	}
	p->pid = pid;
	if (!patient_is_well(p)) {
		patient_end(p);
		return NULL;
	}
	return p;
}

static bool has_ended(pid_t pid)
{
	siginfo_t info = {};

	if (pid == getpid())
		return false;
	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid;
}

bool patient_is_well(struct patient *p)
{
	int64_t deadline = now_ns() + (int64_t)WELL_MS * 1000000;
	unsigned long before[PATIENT_THREADS];

	for (unsigned int i = 0; i < p->nthreads; i++)
		before[i] = p->rounds[i];
	for (unsigned int i = 0; i < p->nthreads;) {
		if (p->failed) {
			fprintf(stderr, "patient: %s\n", p->failure);
			return false;
		}
		/* Two rounds: the first may have been nearly over. */
		if (p->rounds[i] > before[i] + 1) {
			i++;
			continue;
		}
		if (now_ns() > deadline || has_ended(p->pid)) {
			fprintf(stderr, "patient: thread %u does not go on\n", i);
			return false;
		}
		usleep(200);
	}
	return true;
}

bool patient_end(struct patient *p)
{
	bool well = patient_is_well(p);
	int status = 0;

	p->quit = true;
	if (!well)
		kill(p->pid, SIGKILL);
	if (waitpid(p->pid, &status, 0) != p->pid || status != 0)
		well = false;
	munmap(p, sizeof(*p));
	return well;
}
