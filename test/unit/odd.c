/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/procfs.h"
#include "examine.h"
#include "unit.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

/* Programs that give an agent little to live on: they count, and must go on counting. */
static _Atomic unsigned long *count;
static int proc_fd;

static pid_t start(void (*body)(void))
{
	pid_t pid;

	*count = 0;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body();
		_exit(1);
	}
	return pid;
}

static bool goes_on(pid_t pid)
{
	unsigned long before = *count;
	siginfo_t info = {};

	for (int i = 0; i < 2000 && *count < before + 2; i++) {
		if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid)
			return false;
		usleep(1000);
	}
	return *count >= before + 2;
}

static void check(void (*body)(void))
{
	pid_t pid = start(body);
	char text[2048];
	struct error e = {};

	assert_true(goes_on(pid));
	for (int i = 0; i < 30; i++) {
		if (examine(proc_fd, pid, true, &e) < 0) {
			error_format(&e, text, sizeof(text));
			kill(pid, SIGKILL);
			fail_msg("%s", text);
		}
		if (i % 8 == 0)
			assert_true(goes_on(pid));
	}
	assert_true(goes_on(pid));
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void count_on(void)
{
	for (;;) {
		usleep(500);
		++*count;
	}
}

static void limit(int what)
{
	struct rlimit none = {};

	setrlimit(what, &none);
}

static void without_limits(void)
{
	limit(RLIMIT_AS);
	limit(RLIMIT_DATA);
	limit(RLIMIT_NOFILE);
	limit(RLIMIT_NPROC);
	limit(RLIMIT_SIGPENDING);
	limit(RLIMIT_MEMLOCK);
	limit(RLIMIT_STACK);
	count_on();
}

static void test_limits(void **state)
{
	check(without_limits);
}

static void locked(void)
{
	limit(RLIMIT_SIGPENDING);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	count_on();
}

static void test_locked(void **state)
{
	check(locked);
}

static void ignore_signal(int sig)
{
}

/* No signal that could end a list of calls. */
static void with_handlers(void)
{
	struct sigaction sa = {.sa_handler = ignore_signal};

	for (int sig = 1; sig < 32; sig++)
		sigaction(sig, &sa, NULL);
	count_on();
}

static void test_handlers(void **state)
{
	check(with_handlers);
}

static void all_blocked(void)
{
	uint64_t all = ~0ULL;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
	for (int sig = 1; sig < 32; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			raise(sig);
	count_on();
}

static void test_blocked(void **state)
{
	check(all_blocked);
}

static void without_new_code(void)
{
	prctl(PR_SET_MDWE, 1, 0, 0, 0);
	count_on();
}

static void test_mdwe(void **state)
{
	check(without_new_code);
}

static void write_on(void)
{
	int fd = open("/dev/null", O_WRONLY);

	for (;;) {
		syscall(SYS_write, fd, "", 1);
		++*count;
	}
}

static void filtered(void)
{
	struct sock_filter insns[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {4, insns};
	int fd = open("/dev/null", O_WRONLY);

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
		return;
	for (;;) {
		syscall(SYS_write, fd, "", 1);
		++*count;
	}
}

static void strict(void)
{
	int fd = open("/dev/null", O_WRONLY);

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) < 0)
		return;
	for (;;) {
		syscall(SYS_write, fd, "", 1);
		++*count;
	}
}

static void test_seccomp(void **state)
{
	if (geteuid() != 0)
		skip();
	check(filtered);
	check(strict);
}

/* The low end of the stack is not free, so that what is below the stack pointer serves. */
static void with_full_stack(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long from = 0, to;

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, "[stack]"))
			sscanf(line, "%lx-%lx", &from, &to);
	to = (unsigned long)__builtin_frame_address(0) - 65536;
	for (; from && from < to; from += 512)
		*(volatile char *)from = 1;
	write_on();
}

static void test_full_stack(void **state)
{
	check(with_full_stack);
}

/*
 * Code in generated memory alone, with nothing else mapped that an agent could
 * jump to: rdi: pairs of address and length to be unmapped, a zero; rsi: the counter.
 */
extern const char lonely_code[], lonely_code_end[];
asm(".section .rodata\n"
    "lonely_code:\n"
    "mov %rsi, %r12; mov %rdi, %rbx\n"
    "1: mov (%rbx), %rdi; test %rdi, %rdi; jz 2f\n"
    "mov 8(%rbx), %rsi; add $16, %rbx; mov $11, %eax; syscall; jmp 1b\n"
    "2: incq (%r12)\n"
    "push $0; push $0\n" /* pselect6() with a time-out on the stack */
    "movq $500000, 8(%rsp)\n"
    "xor %edi, %edi; xor %esi, %esi; xor %edx, %edx; xor %r10d, %r10d\n"
    "mov %rsp, %r8; xor %r9d, %r9d; mov $270, %eax; syscall\n"
    "test %rax, %rax; jnz 3f\n"
    "add $16, %rsp; jmp 2b\n"
    "3: ud2\n"
    "lonely_code_end:\n"
    ".previous\n");

static void lonely(void)
{
	static unsigned long ranges[512];
	char *page = mmap(NULL, 16384, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void (*code)(void *, void *) = (void (*)(void *, void *))page;
	unsigned long from, to;
	char line[512];
	int n = 0, fd = open("/proc/self/maps", O_RDONLY);
	FILE *f = fdopen(fd, "r");

	while (f && fgets(line, sizeof(line), f) && n < 500) {
		sscanf(line, "%lx-%lx", &from, &to);
		if (strstr(line, "[v") || strstr(line, "[stack]") || from == (unsigned long)page ||
		    (from <= (unsigned long)count && (unsigned long)count < to))
			continue;
		ranges[n++] = from;
		ranges[n++] = to - from;
	}
	/* The kernel would miss it. */
	syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, 1, RSEQ_SIG);
	memcpy(page, lonely_code, (size_t)(lonely_code_end - lonely_code));
	memcpy(page + 4096, ranges, sizeof(ranges));
	code(page + 4096, (void *)count);
}

static void test_no_gadgets(void **state)
{
	check(lonely);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),	   cmocka_unit_test(test_locked),
		cmocka_unit_test(test_handlers),   cmocka_unit_test(test_blocked),
		cmocka_unit_test(test_mdwe),	   cmocka_unit_test(test_seccomp),
		cmocka_unit_test(test_full_stack), cmocka_unit_test(test_no_gadgets),
	};
	struct error e = {};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (count == MAP_FAILED || procfs_open_root(&proc_fd, &e) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
