/* SPDX-License-Identifier: Apache-2.0 */
/* Pending signals with all that was said with them, of the process and of each thread, in order. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define QUEUED 20

static volatile pid_t tid;
static siginfo_t fault;

static void queue(pid_t pid, pid_t thread, int sig, int code, long value)
{
	siginfo_t info = {0};

	info.si_code = code;
	info.si_pid = 12345;
	info.si_uid = 54321;
	info.si_value.sival_ptr = (void *)value;
	if (thread)
		CHECK(!syscall(SYS_rt_tgsigqueueinfo, pid, thread, sig, &info));
	else
		CHECK(!syscall(SYS_rt_sigqueueinfo, pid, sig, &info));
}

static siginfo_t next(int sig)
{
	struct timespec none = {0, 0};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	memset(&info, 0, sizeof(info));
	/* libc's sigtimedwait() turns SI_TKILL into SI_USER. */
	CHECKF(syscall(SYS_rt_sigtimedwait, &set, &info, &none, 8) == sig,
	       "signal %d is not pending", sig);
	return info;
}

static void expect(int sig, int code, long value)
{
	siginfo_t info = next(sig);

	CHECK_EQUAL(info.si_code, code);
	CHECK_EQUAL(info.si_pid, 12345);
	CHECK_EQUAL(info.si_uid, 54321);
	CHECK_EQUAL((long)info.si_value.sival_ptr, value);
}

static void expect_none(void)
{
	sigset_t set;

	sigpending(&set);
	for (int sig = 1; sig < 65; sig++)
		CHECKF(sigismember(&set, sig) <= 0, "signal %d is still pending", sig);
}

static void *thread(void *arg)
{
	/* Only to oneself may one pretend to be tgkill(). */
	queue(getpid(), syscall(SYS_gettid), SIGUSR1, SI_TKILL, 0x1122334455667788);
	tid = syscall(SYS_gettid);
	test_hold();
	while (!*(volatile int *)arg)
		usleep(1000);
	/* Those of the process have been taken by the other. */
	for (long i = 0; i < QUEUED; i++)
		expect(SIGRTMAX, SI_QUEUE, 500 + i);
	expect(SIGUSR1, SI_TKILL, 0x1122334455667788);
	expect_none();
	return NULL;
}

static int die(void *arg)
{
	return 5;
}

int main(void)
{
	volatile int taken = 0;
	siginfo_t info;
	sigset_t all;
	pthread_t other;
	pid_t pid, self = getpid();

	test_init();
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	CHECK(!pthread_create(&other, NULL, thread, (void *)&taken));
	while (!tid)
		usleep(1000);
	for (long i = 0; i < QUEUED; i++) {
		queue(self, 0, SIGRTMIN + 1 + i % 3, i % 2 ? SI_QUEUE : SI_MESGQ, 100 + i);
		queue(self, tid, SIGRTMAX, SI_QUEUE, 500 + i);
	}
	/* The same signal for the process, and not twice: it is no real-time signal. */
	queue(self, 0, SIGUSR1, SI_USER, 1);
	queue(self, 0, SIGUSR1, SI_USER, 2);
	kill(self, SIGTERM);
	pid = test_fork(die, NULL);
	test_until_state(pid, 'Z');
	/* One that only the kernel makes. */
	fault.si_code = SEGV_MAPERR;
	fault.si_addr = (void *)0xdeadbee0;
	fault.si_signo = SIGSEGV;
	CHECK(!syscall(SYS_rt_tgsigqueueinfo, self, self, SIGSEGV, &fault));

	test_wait();
	if (test_break(1))
		next(SIGRTMIN + 2);
	if (test_break(2))
		queue(self, 0, SIGRTMIN + 9, SI_QUEUE, 0);
	for (long i = 0; i < QUEUED; i += 3)
		expect(SIGRTMIN + 1, i % 2 ? SI_QUEUE : SI_MESGQ, 100 + i);
	for (long i = 1; i < QUEUED; i += 3)
		expect(SIGRTMIN + 2, i % 2 ? SI_QUEUE : SI_MESGQ, 100 + i);
	for (long i = 2; i < QUEUED; i += 3)
		expect(SIGRTMIN + 3, i % 2 ? SI_QUEUE : SI_MESGQ, 100 + i);
	expect(SIGUSR1, SI_USER, 1);
	info = next(SIGTERM);
	CHECK(info.si_code == SI_USER && info.si_pid == self && info.si_uid == getuid());
	info = next(SIGCHLD);
	CHECK(info.si_code == CLD_EXITED && info.si_pid == pid && info.si_status == 5);
	info = next(SIGSEGV);
	CHECK(info.si_code == SEGV_MAPERR && info.si_addr == fault.si_addr);
	expect_none();
	taken = 1;
	CHECK(!pthread_join(other, NULL));
	test_reap(pid, 5);
	test_pass();
}
