/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seccomp filters, several one above the other, different ones in two threads, that
 * kill for system calls that a checkpoint and a restart have need of.
 *
 * needs: root
 */
#include "harness.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const int forbidden[] = {
	SYS_mmap,	  SYS_munmap,	   SYS_mprotect, SYS_rt_sigaction,  SYS_openat,
	SYS_open,	  SYS_socket,	   SYS_prctl,	 SYS_sigaltstack,   SYS_getitimer,
	SYS_setitimer,	  SYS_userfaultfd, SYS_clone,	 SYS_clone3,	    SYS_fork,
	SYS_memfd_create, SYS_recvmsg,	   SYS_sendmsg,	 SYS_timer_gettime, SYS_arch_prctl,
	SYS_dup2,	  SYS_close,	   SYS_mremap,	 SYS_madvise,	    SYS_rt_sigprocmask,
	SYS_seccomp,
};
#define FORBIDDEN (sizeof(forbidden) / sizeof(forbidden[0]))

static void install(const struct sock_filter *code, size_t length, unsigned int flags)
{
	struct sock_fprog program = {.len = (unsigned short)length, .filter = (void *)code};

	CHECK(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}

static void kill_for(const int *calls, size_t count, uint32_t action, unsigned int flags)
{
	struct sock_filter code[3 * 64];
	size_t n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < count; i++) {
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	install(code, n, flags);
}

static bool mild; /* what is forbidden is answered, and nobody killed for it */
static volatile int *shared;
static volatile int thread_ready;
static pid_t other_tid;

static void *thread(void *arg)
{
	static const int calls[] = {SYS_getuid};

	other_tid = syscall(SYS_gettid);
	/* This thread's own. */
	kill_for(calls, 1, SECCOMP_RET_ERRNO | 77, 0);
	thread_ready = 1;
	test_hold();
	CHECK(syscall(SYS_getuid) == -1 && errno == 77);
	thread_ready = 2;
	for (;;)
		pause();
	return NULL;
}

static int filtered(void *arg)
{
	static const int errors[] = {SYS_getgid, SYS_sched_yield};
	static const int second[] = {SYS_sched_yield};
	pthread_t other;

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	kill_for(errors, 2, SECCOMP_RET_ERRNO | 55, 0);
	CHECK(!pthread_create(&other, NULL, thread, NULL));
	while (!thread_ready)
		usleep(1000);
	kill_for(second, 1, SECCOMP_RET_ERRNO | 44, SECCOMP_FILTER_FLAG_LOG);
	kill_for(forbidden, FORBIDDEN - !!test_break(1),
		 mild ? SECCOMP_RET_ERRNO | 33 : SECCOMP_RET_KILL_PROCESS, 0);
	shared[0] = 1;
	test_hold();
	/* The later filter has precedence when both give errors; in the other thread it is not. */
	CHECK(syscall(SYS_sched_yield) == -1 && errno == 44);
	CHECK(syscall(SYS_getgid) == -1 && errno == 55);
	while (thread_ready < 2 || !shared[3])
		usleep(1000);
	CHECK(syscall(SYS_getuid) != -1);
	shared[1] = 1;
	if (syscall(test_break(1) ? SYS_seccomp : SYS_mremap, 0, 0, 0) == -1 && mild && errno == 33)
		kill(getpid(), SIGSYS);
	shared[2] = 1;
	return 3;
}

static void count_filters(pid_t pid, char *count, char *mode)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	test_line(path, "Seccomp", mode, 16);
	test_line(path, "Seccomp_filters", count, 16);
}

int main(int argc, char **argv)
{
	char count[16], mode[16];
	int status;
	pid_t pid;

	mild = argc > 1 && !strcmp(argv[1], "mild");
	test_init();
	shared = test_shared(4096);
	pid = test_fork(filtered, NULL);
	while (!shared[0])
		usleep(1000);
	test_wait();
	count_filters(pid, count, mode);
	CHECKF(!strcmp(mode, "2") && !strcmp(count, "3"), "mode %s with %s filters", mode, count);
	shared[3] = 1;
	CHECK_EQUAL(waitpid(pid, &status, 0), pid);
	CHECK(shared[1] && !shared[2]);
	CHECKF(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "status %x", status);
	test_pass();
}
