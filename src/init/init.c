/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first process of a container: `init PID` waits for its child PID, hands it
 * the signals that ask a program to end, reaps what is left to it, and ends as
 * that child does; `init PID all` when nobody is left. It is saved with the container like every
 * other process, so it depends on nothing: no library, no file, no stack but its first page.
 *
 * `init -` is none, but a process that stands still, of which nobody can learn anything, and ends
 * when it is told to go on.
 */
#include <linux/prctl.h>
#include <linux/wait.h>
#include <stdint.h>
#include <sys/syscall.h>

#define SIG(n)	   (1ULL << ((n)-1))
/* SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGCONT, SIGWINCH */
#define HANDED_ON  (SIG(1) | SIG(2) | SIG(3) | SIG(10) | SIG(12) | SIG(15) | SIG(18) | SIG(28))
/* All but SIGURG, which is ignored: a checkpoint needs one that is not blocked to be quick. */
#define WAITED_FOR (~SIG(23))

static long call(long nr, long a, long b, long c, long d)
{
	register long r10 asm("r10") = d;
	long ret;

	asm volatile("syscall"
		     : "=a"(ret)
		     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
		     : "rcx", "r11", "memory");
	return ret;
}

static long number(const char *s)
{
	long n = 0;

	while (*s >= '0' && *s <= '9')
		n = n * 10 + (*s++ - '0');
	return n;
}

struct care {
	long child; /* 0: it has ended */
	long status;
	long all; /* goes on until nobody is left */
};

/* Reaps who has ended; does not return once that was the child, or nobody is left. */
static void reap(struct care *c)
{
	int status = 0;
	long pid;

	while ((pid = call(SYS_wait4, -1, (long)&status, WNOHANG | __WALL, 0)) > 0) {
		if (pid != c->child)
			continue;
		c->child = 0;
		c->status = status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
		if (!c->all)
			call(SYS_exit_group, c->status, 0, 0, 0);
	}
	if (pid == -10) /* ECHILD */
		call(SYS_exit_group, c->status, 0, 0, 0);
}

__attribute__((noreturn)) static void stand(void)
{
	call(SYS_kill, call(SYS_getpid, 0, 0, 0, 0), 19 /* SIGSTOP */, 0, 0);
	call(SYS_exit, 0, 0, 0, 0);
	__builtin_unreachable();
}

__attribute__((used, noreturn)) void init_main(const long *stack);
void init_main(const long *stack)
{
	struct care c = {stack[0] > 1 ? number((const char *)stack[2]) : 0, 0, stack[0] > 2};
	uint64_t all = WAITED_FOR;

	/* Executed from memory, it has got an odd name. */
	call(SYS_prctl, PR_SET_NAME, (long)"reprise-init", 0, 0);
	if (stack[0] > 1 && *(const char *)stack[2] == '-')
		stand();
	call(SYS_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&all, 0, sizeof(all));
	for (;;) {
		long sig;

		reap(&c);
		sig = call(SYS_rt_sigtimedwait, (long)&all, 0, 0, sizeof(all));
		if (c.child && sig > 0 && SIG(sig) & HANDED_ON)
			call(SYS_kill, c.child, sig, 0, 0);
	}
}

asm(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall init_main\n");
