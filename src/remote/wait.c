/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/ptrace.h>
#include <sched.h>
#include <signal.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "core/kabi.h"
#include "remote/ptrace.h"
#include "remote/tracer.h"

#define SPINS	       40 /* yields before we begin to sleep */
#define FIRST_SLEEP_NS 20000
#define LAST_SLEEP_NS  2000000
#define SHORT_SLEEP_NS 100000
#define DEAD_NS	       300000000

static bool is_job_stop(int signal)
{
	return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

static int decode_stop(pid_t tid, int status, struct trace_stop *s, struct error *e)
{
	s->signal = status & 0xff;
	s->event = status >> 8;
	if (s->event == PTRACE_EVENT_STOP) {
		s->kind = is_job_stop(s->signal) ? TRACE_GROUP_STOP : TRACE_EVENT_STOP;
		return 0;
	}
	if (s->event) {
		s->kind = TRACE_EVENT;
		return trace_get_event(tid, &s->message, e);
	}
	if (s->signal == (SIGTRAP | 0x80)) {
		s->kind = TRACE_SYSCALL;
		s->signal = SIGTRAP;
	} else {
		s->kind = TRACE_SIGNAL;
	}
	return 0;
}

/*
 * Looks for a stop. It is left unconsumed: a consumed one loses its exit code,
 * and a signal-delivery stop whose tracer dies would then swallow the signal
 * instead of delivering it. Returns 1 when there is a report.
 */
static int look(pid_t tid, int flags, struct trace_stop *ret, struct error *e)
{
	siginfo_t info = {};
	int r;

	do {
		r = tracer_waitid(tid, &info, WSTOPPED | WEXITED | WNOWAIT | __WALL | flags);
	} while (r == -EINTR);
	if (r < 0)
		return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", tid);
	if (info.si_pid == 0)
		return 0;
	*ret = (struct trace_stop){};
	if (info.si_code == CLD_EXITED || info.si_code == CLD_KILLED ||
	    info.si_code == CLD_DUMPED) {
		ret->kind = TRACE_EXITED;
		/* The dead are taken away: their real parents are told only then. */
		if (tracer_waitpid(tid, &ret->status, __WALL | WNOHANG) != tid)
			return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", tid);
		return 1;
	}
	ret->status = (info.si_status << 8) | 0x7f;
	r = decode_stop(tid, info.si_status, ret, e);
	return r < 0 ? r : 1;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/*
 * No system call waits for a tracee and a time at once without a signal
 * handler of ours, so we look again and again. Most stops are there at once.
 */
static int look_until(pid_t tid, uint64_t deadline, long most_ns, struct trace_stop *ret,
		      struct error *e)
{
	long pause_ns = FIRST_SLEEP_NS;

	for (unsigned int i = 0;; i++) {
		int r = look(tid, WNOHANG, ret, e);

		if (r)
			return r < 0 ? r : 0;
		if (i < SPINS) {
			sched_yield();
			continue;
		}
		if (now_ns() >= deadline)
			return -ETIMEDOUT;
		nanosleep(&(struct timespec){.tv_nsec = pause_ns}, NULL);
		if (pause_ns < most_ns)
			pause_ns *= 2;
	}
}

static bool has_memory(pid_t tid)
{
	char byte;
	const struct iovec here = {&byte, 1}, there = {NULL, 1};

	return process_vm_readv(tid, &here, 1, &there, 1, 0) >= 0 || errno != ESRCH;
}

int trace_wait(pid_t tid, struct trace_stop *ret, int timeout_ms, struct error *e)
{
	int r;

	if (timeout_ms >= 0)
		return look_until(tid, now_ns() + (uint64_t)timeout_ms * 1000000, LAST_SLEEP_NS,
				  ret, e);
	/*
	 * The end of a leader is not reported before that of its threads has been, of which nobody
	 * may have asked. It has no memory then.
	 */
	do {
		r = look_until(tid, now_ns() + DEAD_NS, SHORT_SLEEP_NS, ret, e);
	} while (r == -ETIMEDOUT && has_memory(tid));
	if (r == -ETIMEDOUT)
		return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", tid);
	return r;
}

int trace_settle(pid_t tid, struct trace_stop *stop, int timeout_ms, struct error *e)
{
	int r;

	do {
		/*
		 * The request stays pending while the task goes on, and is honoured on
		 * its way back to user mode; where a handler is to run, at its first
		 * instruction. Every stop takes pending requests away.
		 */
		r = trace_interrupt(tid, e);
		if (r == 0)
			r = trace_cont(tid, stop->kind == TRACE_SIGNAL ? stop->signal : 0, e);
		if (r == 0)
			r = trace_wait(tid, stop, timeout_ms, e);
		if (r < 0)
			return r;
		if (stop->kind == TRACE_EXITED)
			return error_set(e, -ESRCH, E_TASK_GONE, "task %d has ended", tid);
	} while (stop->kind != TRACE_EVENT_STOP && stop->kind != TRACE_GROUP_STOP);
	return 0;
}
