/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "remote/batch.h"
#include "remote/ptrace.h"
#include "unit.h"

/* A task of our own under a captive agent. */
struct captive {
	pid_t pid;
	void *at;
	struct agent *agent;
	struct error e;
};

static void no_error(const struct error *e, int r)
{
	char text[2048];

	if (r >= 0)
		return;
	error_format(e, text, sizeof(text));
	fail_msg("%s", text);
}

static int setup(void **state)
{
	static struct captive c;
	struct trace_stop stop;

	memset(&c, 0, sizeof(c));
	c.at = mmap(NULL, AGENT_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c.at == MAP_FAILED)
		return -1;
	agent_place(c.at);
	c.pid = fork();
	if (c.pid == 0)
		for (;;)
			pause();
	no_error(&c.e, trace_seize(c.pid, PTRACE_O_EXITKILL, &c.e));
	no_error(&c.e, trace_interrupt(c.pid, &c.e));
	no_error(&c.e, trace_wait(c.pid, &stop, -1, &c.e));
	assert_int_equal(stop.kind, TRACE_EVENT_STOP);
	no_error(&c.e, agent_captive(&c.agent, c.pid, (uint64_t)c.at, &c.e));
	*state = &c;
	return 0;
}

static int teardown(void **state)
{
	struct captive *c = *state;

	no_error(&c->e, agent_return(c->agent, &c->e));
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, __WALL);
	munmap(c->at, AGENT_SIZE);
	return 0;
}

static void run(struct captive *c, struct batch *b)
{
	no_error(&c->e, agent_run(c->agent, c->pid, NULL, b, &c->e));
}

static void test_arguments(void **state)
{
	struct captive *c = *state;
	_cleanup_(batch_free) struct batch b = {};
	uint32_t fds = batch_data(&b, NULL, 8), text = batch_data(&b, "hello", 5);
	uint32_t iov = batch_data(&b, &(struct iovec){.iov_len = 5}, sizeof(struct iovec));
	uint32_t back = batch_data(&b, NULL, 16), back_iov;
	int pipe_call, dup_call, write_call, read_call, bad, *fd;

	back_iov = batch_data(&b, &(struct iovec){.iov_len = 16}, sizeof(struct iovec));
	batch_pointer(&b, iov, text);
	batch_pointer(&b, back_iov, back);
	pipe_call = batch_call(&b, SYS_pipe2, DATA(fds), VAL(0));
	run(c, &b);
	assert_int_equal(batch_result(&b, pipe_call), 0);
	fd = batch_at(&b, fds);
	dup_call = batch_call(&b, SYS_dup, VAL(fd[1]));
	write_call = batch_call(&b, SYS_writev, RESULT(dup_call), DATA(iov), VAL(1));
	read_call = batch_call(&b, SYS_readv, VAL(fd[0]), DATA(back_iov), VAL(1));
	bad = batch_call(&b, SYS_close, VAL(-1));
	run(c, &b);
	assert_true(batch_result(&b, dup_call) > 2);
	assert_int_equal(batch_result(&b, write_call), 5);
	assert_int_equal(batch_result(&b, read_call), 5);
	assert_memory_equal(batch_at(&b, back), "hello", 5);
	assert_int_equal(batch_result(&b, bad), -EBADF);
	assert_int_equal(batch_number(&b, bad), SYS_close);
	assert_int_equal(batch_failed(&b), -1);
}

static void test_must(void **state)
{
	struct captive *c = *state;
	_cleanup_(batch_free) struct batch b = {};
	int first = batch_call(&b, SYS_getpid), bad = batch_call(&b, SYS_close, VAL(-1));
	int last = batch_call(&b, SYS_getpid);

	batch_must(&b, first);
	batch_must(&b, bad);
	run(c, &b);
	assert_int_equal(batch_result(&b, first), c->pid);
	assert_int_equal(batch_result(&b, bad), -EBADF);
	assert_int_equal(batch_result(&b, last), -ECANCELED);
	assert_int_equal(batch_failed(&b), bad);
	batch_reset(&b);
	last = batch_call(&b, SYS_getppid);
	run(c, &b);
	assert_int_equal(batch_result(&b, last), getpid());
}

static void test_building(void **state)
{
	struct captive *c = *state;
	_cleanup_(batch_free) struct batch b = {};
	uint32_t at;

	for (int i = 0; i < 700; i++)
		batch_call(&b, SYS_getpid);
	at = batch_data(&b, NULL, 4096);
	memset(batch_at(&b, at), 7, 4096);
	run(c, &b);
	assert_int_equal(batch_result(&b, 699), c->pid);
	assert_int_equal(((char *)batch_at(&b, at))[4095], 7);
	batch_data(&b, NULL, 16384);
	assert_int_equal(agent_run(c->agent, c->pid, NULL, &b, &c->e), -E2BIG);
	assert_int_equal(c->e.code, E_INTERNAL);
	error_clear(&c->e);
	batch_reset(&b);
	assert_int_equal(batch_data(&b, NULL, 1 << 20), 0);
	assert_null(batch_at(&b, 0));
	assert_int_equal(agent_run(c->agent, c->pid, NULL, &b, &c->e), -E2BIG);
	error_clear(&c->e);
	batch_reset(&b);
	batch_call(&b, SYS_close, RESULT(0));
	assert_int_equal(agent_run(c->agent, c->pid, NULL, &b, &c->e), -EINVAL);
	error_clear(&c->e);
	batch_reset(&b);
	run(c, &b);
}

/* What the application has set is there after the last batch: actions, mask, pending signals. */
static void test_signals(void **state)
{
	struct captive *c = *state;
	_cleanup_(batch_free) struct batch b = {};
	struct {
		uint64_t handler, flags, restorer, mask;
	} ignored = {.handler = 1}, now[64];
	uint64_t set = ~0ULL, mask;
	siginfo_t infos[80];
	uint32_t old[65], act = batch_data(&b, &ignored, sizeof(ignored));

	for (int sig = 1; sig <= 64; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			batch_call(&b, SYS_rt_sigaction, VAL(sig), DATA(act), VAL(0), VAL(8));
	run(c, &b);
	no_error(&c->e, trace_set_sigmask(c->pid, set, &c->e));
	batch_reset(&b);
	for (int sig = 1; sig <= 64; sig++) {
		siginfo_t info = {.si_signo = sig, .si_code = SI_QUEUE, .si_pid = 1};
		uint32_t data = batch_data(&b, &info, sizeof(info));

		/* All of the kernel's fault signals, and those by which a batch ends, but one. */
		if (sig != SIGKILL && sig != SIGSTOP && sig != SIGUSR2)
			batch_call(&b, SYS_rt_tgsigqueueinfo, VAL(c->pid), VAL(c->pid), VAL(sig),
				   DATA(data));
	}
	run(c, &b);
	batch_reset(&b);
	for (int sig = 1; sig <= 64; sig++) {
		old[sig] = batch_data(&b, NULL, sizeof(*now));
		batch_call(&b, SYS_rt_sigaction, VAL(sig), VAL(0), DATA(old[sig]), VAL(8));
	}
	run(c, &b);
	no_error(&c->e, trace_get_sigmask(c->pid, &mask, &c->e));
	assert_int_equal(mask, set & ~(1ULL << (SIGKILL - 1)) & ~(1ULL << (SIGSTOP - 1)));
	/* SIGTSTP and its like take a pending SIGCONT away. */
	assert_int_equal(trace_peek_siginfo(c->pid, false, 0, infos, 80, &c->e), 60);
	assert_int_equal(trace_peek_siginfo(c->pid, true, 0, infos, 80, &c->e), 0);
	for (int sig = 1; sig <= 64; sig++) {
		memcpy(&now[sig - 1], batch_at(&b, old[sig]), sizeof(*now));
		if (sig != SIGKILL && sig != SIGSTOP)
			assert_int_equal(now[sig - 1].handler, 1);
	}
}

/* A child and a thread that were made by a batch serve batches from their first stop on. */
static void test_new_tasks(void **state)
{
	struct captive *c = *state;
	_cleanup_(batch_free) struct batch b = {};
	struct clone_args args = {.flags = CLONE_PTRACE, .exit_signal = SIGCHLD};
	int forked = batch_call(&b, SYS_clone3, DATA(batch_data(&b, &args, sizeof(args))),
				VAL(sizeof(args)));
	int made, who, tid;
	struct trace_stop stop;
	struct agent *child_agent;
	pid_t child, thread;

	args = (struct clone_args){.flags = CLONE_PTRACE | CLONE_VM | CLONE_SIGHAND | CLONE_THREAD |
					    CLONE_FILES};
	made = batch_call(&b, SYS_clone3, DATA(batch_data(&b, &args, sizeof(args))),
			  VAL(sizeof(args)));
	run(c, &b);
	child = (pid_t)batch_result(&b, forked);
	thread = (pid_t)batch_result(&b, made);
	assert_true(child > 0 && thread > 0);
	no_error(&c->e, trace_wait(child, &stop, -1, &c->e));
	assert_int_equal(stop.kind, TRACE_EVENT_STOP);
	no_error(&c->e, trace_wait(thread, &stop, -1, &c->e));
	assert_int_equal(stop.kind, TRACE_EVENT_STOP);
	batch_reset(&b);
	who = batch_call(&b, SYS_getpid);
	tid = batch_call(&b, SYS_gettid);
	no_error(&c->e, agent_run(c->agent, thread, NULL, &b, &c->e));
	assert_int_equal(batch_result(&b, who), c->pid);
	assert_int_equal(batch_result(&b, tid), thread);
	no_error(&c->e, agent_captive(&child_agent, child, (uint64_t)c->at, &c->e));
	no_error(&c->e, agent_run(child_agent, child, NULL, &b, &c->e));
	assert_int_equal(batch_result(&b, who), child);
	/* It ends as told, and its parent sees how. */
	no_error(&c->e, agent_exit(child_agent, child, 0, SIGSEGV, false, &c->e));
	no_error(&c->e, trace_detach(child, 0, &c->e));
	no_error(&c->e, agent_return(child_agent, &c->e));
	batch_reset(&b);
	uint32_t status = batch_data(&b, NULL, 4);

	who = batch_call(&b, SYS_wait4, VAL(child), DATA(status), VAL(0), VAL(0));
	run(c, &b);
	assert_int_equal(batch_result(&b, who), child);
	assert_int_equal(*(int *)batch_at(&b, status), SIGSEGV);
	no_error(&c->e, agent_exit(c->agent, thread, 0, 0, true, &c->e));
	no_error(&c->e, trace_cont(thread, 0, &c->e));
	no_error(&c->e, trace_wait(thread, &stop, -1, &c->e));
	assert_int_equal(stop.kind, TRACE_EXITED);
}

static void test_unmap(void **state)
{
	struct captive *c = *state;
	_cleanup_(batch_free) struct batch b = {};
	struct user_regs_struct regs;
	struct trace_stop stop;
	uint64_t mask;
	char byte;

	no_error(&c->e, trace_set_sigmask(c->pid, 0x1234, &c->e));
	batch_call(&b, SYS_getpid);
	run(c, &b);
	no_error(&c->e, trace_get_regs(c->pid, &regs, &c->e));
	no_error(&c->e, agent_unmap(c->agent, c->pid, &c->e));
	assert_true(mem_read(c->pid, (uint64_t)c->at, &byte, 1, NULL) < 0);
	no_error(&c->e, trace_get_sigmask(c->pid, &mask, &c->e));
	assert_int_equal(mask, 0x1234);
	/* In a stop where registers may be set to those of any program. */
	regs.rip = (unsigned long)pause;
	regs.rax = 0;
	no_error(&c->e, trace_set_regs(c->pid, &regs, &c->e));
	no_error(&c->e, trace_cont(c->pid, 0, &c->e));
	assert_int_equal(trace_wait(c->pid, &stop, 20, &c->e), -ETIMEDOUT);
}

static void test_speed(void **state)
{
	struct captive *c = *state;
	_cleanup_(batch_free) struct batch b = {};
	struct timespec from, to;
	double us;

	batch_call(&b, SYS_getpid);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	for (int i = 0; i < 2000; i++)
		run(c, &b);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	us = ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / 2e6;
	print_message("# %.1f us of our time per list of calls\n", us);
	assert_true(us < 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_arguments, setup, teardown),
		cmocka_unit_test_setup_teardown(test_must, setup, teardown),
		cmocka_unit_test_setup_teardown(test_building, setup, teardown),
		cmocka_unit_test_setup_teardown(test_signals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_new_tasks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unmap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_speed, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
