/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch/arch.h"
#include "core/cleanup.h"
#include "core/procfs.h"
#include "remote/sleep.h"
#include "remote/survey.h"

/*
 * System calls that sleep, and what a stop does to them. Most are restarted by
 * the kernel when the task goes on; for others see reissue.c. In a new task nothing is left of
 * what the kernel knew about a time-out, so that what remains of it has to be
 * worked out: the time-out that was asked for, less the time that the task had slept.
 *
 * When it fell asleep is told by /proc/PID/sched, in a clock of the processor that it
 * slept on. All errors are on the safe side: a sleep may last a little longer than
 * asked for, never shorter.
 */

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

#define NS_PER_S       1000000000ULL
#define NS_PER_MS      1000000ULL
#define CODE_BEFORE    48
#define AWAIT_TRIES    20
#define AWAIT_NS       50000
#define CALIBRATE_NS   20000
#define MAX_TIMESPEC_S (1ULL << 33) /* longer sleeps are taken for endless ones */

static const struct sleeping_call sleeping_calls[] = {
	{SYS_nanosleep, TIMEOUT_TIMESPEC, 0, false},
	{SYS_clock_nanosleep, TIMEOUT_TIMESPEC, 2, false},
	{SYS_futex, TIMEOUT_TIMESPEC, 3, false},
#ifdef SYS_poll
	{SYS_poll, TIMEOUT_REGISTER_MS, 2, false},
	{SYS_epoll_wait, TIMEOUT_REGISTER_MS, 3, true},
	/* If its time-out cannot be written back, this and the next two are not restarted. */
	{SYS_select, TIMEOUT_NONE, 0, true},
#endif
	{SYS_pselect6, TIMEOUT_NONE, 0, true},
	{SYS_ppoll, TIMEOUT_NONE, 0, true},
	{SYS_epoll_pwait, TIMEOUT_REGISTER_MS, 3, true},
	{SYS_epoll_pwait2, TIMEOUT_TIMESPEC, 3, true},
	{SYS_rt_sigtimedwait, TIMEOUT_TIMESPEC, 2, true},
	{SYS_semop, TIMEOUT_NONE, 0, true},
	{SYS_semtimedop, TIMEOUT_TIMESPEC, 3, true},
	{SYS_io_getevents, TIMEOUT_TIMESPEC, 4, true},
	{SYS_io_pgetevents, TIMEOUT_TIMESPEC, 4, true},
	{SYS_io_uring_enter, TIMEOUT_NONE, 0, true},
	{SYS_futex_waitv, TIMEOUT_NONE, 0, true},
	/* Sockets with SO_RCVTIMEO or SO_SNDTIMEO; nothing has been moved when they return -EINTR.
	 */
	{SYS_read, TIMEOUT_NONE, 0, true},
	{SYS_readv, TIMEOUT_NONE, 0, true},
	{SYS_write, TIMEOUT_NONE, 0, true},
	{SYS_writev, TIMEOUT_NONE, 0, true},
	{SYS_recvfrom, TIMEOUT_NONE, 0, true},
	{SYS_recvmsg, TIMEOUT_NONE, 0, true},
	{SYS_recvmmsg, TIMEOUT_NONE, 0, true},
	{SYS_sendto, TIMEOUT_NONE, 0, true},
	{SYS_sendmsg, TIMEOUT_NONE, 0, true},
	{SYS_sendmmsg, TIMEOUT_NONE, 0, true},
	{SYS_accept, TIMEOUT_NONE, 0, true},
	{SYS_accept4, TIMEOUT_NONE, 0, true},
	{SYS_connect, TIMEOUT_NONE, 0, true},
#ifdef __x86_64__
	/* The same ones of i386. */
	{I386_NANOSLEEP, TIMEOUT_TIMESPEC32, 0, false},
	{I386_CLOCK_NANOSLEEP, TIMEOUT_TIMESPEC32, 2, false},
	{I386_CLOCK_NANOSLEEP_TIME64, TIMEOUT_TIMESPEC, 2, false},
	{I386_FUTEX, TIMEOUT_TIMESPEC32, 3, false},
	{I386_FUTEX_TIME64, TIMEOUT_TIMESPEC, 3, false},
	{I386_POLL, TIMEOUT_REGISTER_MS, 2, false},
	{ARCH_COMPAT_CALL(256), TIMEOUT_REGISTER_MS, 3, true}, /* epoll_wait */
	{ARCH_COMPAT_CALL(82), TIMEOUT_NONE, 0, true},	       /* select, of old */
	{ARCH_COMPAT_CALL(142), TIMEOUT_NONE, 0, true},	       /* _newselect */
	{ARCH_COMPAT_CALL(308), TIMEOUT_NONE, 0, true},	       /* pselect6 */
	{ARCH_COMPAT_CALL(413), TIMEOUT_NONE, 0, true},	       /* pselect6_time64 */
	{ARCH_COMPAT_CALL(309), TIMEOUT_NONE, 0, true},	       /* ppoll */
	{ARCH_COMPAT_CALL(414), TIMEOUT_NONE, 0, true},	       /* ppoll_time64 */
	{ARCH_COMPAT_CALL(319), TIMEOUT_REGISTER_MS, 3, true}, /* epoll_pwait */
	{ARCH_COMPAT_CALL(SYS_epoll_pwait2), TIMEOUT_TIMESPEC, 3, true},
	{ARCH_COMPAT_CALL(177), TIMEOUT_TIMESPEC32, 2, true}, /* rt_sigtimedwait */
	{ARCH_COMPAT_CALL(421), TIMEOUT_TIMESPEC, 2, true},   /* rt_sigtimedwait_time64 */
	{I386_IPC, TIMEOUT_TIMESPEC32, 5, true},
	{ARCH_COMPAT_CALL(420), TIMEOUT_TIMESPEC, 3, true},   /* semtimedop_time64 */
	{ARCH_COMPAT_CALL(247), TIMEOUT_TIMESPEC32, 4, true}, /* io_getevents */
	{ARCH_COMPAT_CALL(385), TIMEOUT_TIMESPEC32, 4, true}, /* io_pgetevents */
	{ARCH_COMPAT_CALL(416), TIMEOUT_TIMESPEC, 4, true},   /* io_pgetevents_time64 */
	{ARCH_COMPAT_CALL(SYS_io_uring_enter), TIMEOUT_NONE, 0, true},
	{ARCH_COMPAT_CALL(SYS_futex_waitv), TIMEOUT_NONE, 0, true},
	{ARCH_COMPAT_CALL(3), TIMEOUT_NONE, 0, true},	/* read */
	{ARCH_COMPAT_CALL(145), TIMEOUT_NONE, 0, true}, /* readv */
	{ARCH_COMPAT_CALL(4), TIMEOUT_NONE, 0, true},	/* write */
	{ARCH_COMPAT_CALL(146), TIMEOUT_NONE, 0, true}, /* writev */
	{ARCH_COMPAT_CALL(102), TIMEOUT_NONE, 0, true}, /* socketcall */
	{ARCH_COMPAT_CALL(371), TIMEOUT_NONE, 0, true}, /* recvfrom */
	{ARCH_COMPAT_CALL(372), TIMEOUT_NONE, 0, true}, /* recvmsg */
	{ARCH_COMPAT_CALL(337), TIMEOUT_NONE, 0, true}, /* recvmmsg */
	{ARCH_COMPAT_CALL(417), TIMEOUT_NONE, 0, true}, /* recvmmsg_time64 */
	{ARCH_COMPAT_CALL(369), TIMEOUT_NONE, 0, true}, /* sendto */
	{ARCH_COMPAT_CALL(370), TIMEOUT_NONE, 0, true}, /* sendmsg */
	{ARCH_COMPAT_CALL(345), TIMEOUT_NONE, 0, true}, /* sendmmsg */
	{ARCH_COMPAT_CALL(364), TIMEOUT_NONE, 0, true}, /* accept4 */
	{ARCH_COMPAT_CALL(362), TIMEOUT_NONE, 0, true}, /* connect */
#endif
};

const struct sleeping_call *sleeping_call(long nr)
{
	for (size_t i = 0; i < sizeof(sleeping_calls) / sizeof(*sleeping_calls); i++)
		if (sleeping_calls[i].nr == nr)
			return &sleeping_calls[i];
	return NULL;
}

bool sleeping_is_timed(const struct sleeping_call *call, const uint64_t args[6])
{
	if (!call || call->form == TIMEOUT_NONE)
		return false;
	if (sleeping_plain(call->nr) == SYS_clock_nanosleep && (args[1] & TIMER_ABSTIME))
		return false;
	if (sleeping_plain(call->nr) == SYS_futex && (args[1] & FUTEX_CMD_MASK) != FUTEX_WAIT)
		return false;
#ifdef __x86_64__
	if (call->nr == I386_IPC && (args[0] & 0xffff) != IPC_CALL_SEMTIMEDOP)
		return false;
#endif
	if (call->form == TIMEOUT_REGISTER_MS)
		return (int32_t)args[call->arg] > 0;
	return args[call->arg] != 0;
}

uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* A line "name   :   12.345678" of /proc/PID/sched, in units of its last digit. */
static bool sched_field(const char *text, const char *name, uint64_t *ret)
{
	const char *at = text;
	size_t len = strlen(name);
	char *end;

	while ((at = strstr(at, name))) {
		if ((at == text || at[-1] == '\n') && (at[len] == ' ' || at[len] == ':'))
			break;
		at += len;
	}
	at = at ? strchr(at, ':') : NULL;
	if (!at)
		return false;
	*ret = strtoull(at + 1, &end, 10);
	if (end == at + 1)
		return false;
	if (*end == '.') {
		for (int digits = 0; digits < 6; digits++) {
			end++;
			if (*end < '0' || *end > '9')
				return false;
			*ret = *ret * 10 + (uint64_t)(*end - '0');
		}
	}
	return true;
}

static bool read_sched(int proc_fd, const char *path, uint64_t *exec_start, uint64_t *switches)
{
	_cleanup_(free_ptr) char *text = NULL;

	return procfs_read(proc_fd, &text, NULL, "%s/sched", path) > 0 &&
	       sched_field(text, "se.exec_start", exec_start) &&
	       sched_field(text, "nr_voluntary_switches", switches);
}

/*
 * The clock differs from one processor to the next (it leaves out the time that
 * went into interrupts), so we go there and compare. After a sleep our own exec_start is that of
 * our waking up, hence never later than the time that we read afterwards.
 */
static bool calibrate(int proc_fd, int cpu, int64_t *offset)
{
	uint64_t exec_start, switches;
	cpu_set_t before, there;
	bool ok;

	if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof(before), &before) < 0)
		return false;
	CPU_ZERO(&there);
	CPU_SET((size_t)cpu, &there);
	if (sched_setaffinity(0, sizeof(there), &there) < 0)
		return false;
	nanosleep(&(struct timespec){.tv_nsec = CALIBRATE_NS}, NULL);
	ok = read_sched(proc_fd, "thread-self", &exec_start, &switches);
	*offset = (int64_t)(monotonic_ns() - exec_start);
	return sched_setaffinity(0, sizeof(before), &before) == 0 && ok;
}

static bool clock_offset(int proc_fd, int cpu, struct sched_clocks *clocks, int64_t *offset)
{
	struct sched_clock *c;

	vec_for_each (known, &clocks->clocks) {
		if (known->cpu == cpu) {
			*offset = known->offset;
			return true;
		}
	}
	if (!calibrate(proc_fd, cpu, offset))
		return false;
	c = vec_push(&clocks->clocks);
	if (c)
		*c = (struct sched_clock){cpu, *offset};
	return true;
}

/* The processor is field 39 of /proc/PID/stat. */
static int last_cpu(int proc_fd, pid_t pid, pid_t tid)
{
	_cleanup_(free_ptr) char *text = NULL;
	const char *at;

	if (procfs_read(proc_fd, &text, NULL, "%d/task/%d/stat", pid, tid) <= 0)
		return -1;
	at = strrchr(text, ')');
	for (int field = 2; at && field < 39; field++)
		at = strchr(at + 1, ' ');
	return at ? atoi(at + 1) : -1;
}

static void observe_since(int proc_fd, pid_t pid, struct frozen_thread *t,
			  struct sched_clocks *clocks)
{
	uint64_t exec_start;
	int64_t offset;
	char path[48];

	snprintf(path, sizeof(path), "%d/task/%d", pid, t->tid);
	if (read_sched(proc_fd, path, &exec_start, &t->switches) &&
	    clock_offset(proc_fd, last_cpu(proc_fd, pid, t->tid), clocks, &offset))
		t->asleep_since = exec_start + (uint64_t)offset;
}

static void observe_wchan(int proc_fd, pid_t pid, struct frozen_thread *t)
{
	_cleanup_(free_ptr) char *text = NULL;

	if (procfs_read(proc_fd, &text, NULL, "%d/task/%d/wchan", pid, t->tid) > 0)
		snprintf(t->wchan, sizeof(t->wchan), "%s", text);
}

void sleep_await(int proc_fd, pid_t pid, struct frozen_thread *t)
{
	struct proc_stat st;

	for (int i = 0; i < AWAIT_TRIES; i++) {
		if (proc_stat_read(proc_fd, pid, t->tid, &st, NULL) < 0)
			return;
		if (st.state == 'S')
			break;
		nanosleep(&(struct timespec){.tv_nsec = AWAIT_NS}, NULL);
	}
	observe_wchan(proc_fd, pid, t);
}

static bool is_futex_wait(uint64_t op)
{
	op &= FUTEX_CMD_MASK;
	return op == FUTEX_WAIT || op == FUTEX_WAIT_BITSET;
}

static bool is_small(uint64_t v)
{
	return v < 4096;
}

/* Not where a task sleeps, but where it was held, or nothing that we may know. */
static bool is_known(const char *wchan)
{
	return *wchan && strcmp(wchan, "0") && !strstr(wchan, "stop") && !strstr(wchan, "freez");
}

/*
 * A clock is an int, of which the upper half means nothing but is zeros or ones where a compiler
 * has made the call. Any pointer may have the sign of one in its lower half.
 */
static bool may_be_clock(uint64_t arg, const char *wchan)
{
	if (is_small(arg))
		return true;
	/* Of the others only that of a process can be slept on: do_cpu_nanosleep(). */
	return (int32_t)arg < 0 && (arg >> 32 == 0 || arg >> 32 == UINT32_MAX) &&
	       (!is_known(wchan) || strstr(wchan, "cpu_n"));
}

/* Could these be the arguments of that call? */
static bool fits(long nr, const uint64_t args[6], const char *wchan)
{
	switch (sleeping_plain(nr)) {
	case SYS_nanosleep:
		return !is_small(args[0]) && (!args[1] || !is_small(args[1]));
	case SYS_clock_nanosleep:
		return may_be_clock(args[0], wchan) && is_small(args[1]) && !is_small(args[2]);
	case SYS_futex:
		return !is_small(args[0]) && is_futex_wait(args[1]) && !is_small(args[3]);
	default:
		return args[1] < 1 << 20 && (int32_t)args[2] >= 0;
	}
}

/*
 * The function in which restart_syscall(2) sleeps. That of nanosleep does not show, since it
 * counts as part of the scheduler: it is the one that remains.
 */
static bool may_sleep_in(const char *wchan, long nr)
{
	bool futex = strstr(wchan, "futex"), polls = strstr(wchan, "poll");

	if (!is_known(wchan))
		return true;
	nr = sleeping_plain(nr);
	if (nr == SYS_nanosleep)
		return !futex && !polls && !strstr(wchan, "cpu_n");
	if (nr == SYS_clock_nanosleep)
		return !futex && !polls;
	return nr == SYS_futex ? futex : polls;
}

/* What the code before the call loads; that before the call of the vDSO, if it is there. */
static long loaded_nr(pid_t tid, const struct task_call *call)
{
	bool compat = call->nr >= ARCH_COMPAT;
	uint64_t at = call->ip;
	uint8_t code[CODE_BEFORE];
	uint32_t from = 0;
	long nr = -1;

	for (int way = 0; way < (compat ? 2 : 1) && nr < 0; way++) {
		if (way &&
		    mem_read(tid, call->sp + ARCH_COMPAT_RETURN_AT, &from, sizeof(from), NULL) < 0)
			break;
		if (way)
			at = from;
		if (at < sizeof(code) ||
		    mem_read(tid, at - sizeof(code), code, sizeof(code), NULL) < 0)
			continue;
		nr = arch_call_loaded(code, sizeof(code));
		if (nr >= 0 && compat)
			nr = ARCH_COMPAT_CALL(nr);
		if (!freezer_has_restart_block(nr))
			nr = -1;
	}
	return nr;
}

/*
 * Which call restart_syscall(2) stands for: there are four. Its arguments, and where the task
 * sleeps, if we may know, leave one in nearly all cases; else the code before the call tells, which
 * loads its number. Of 32-bit tasks there are more, which differ in how they write down a time:
 * that only the code tells.
 */
long sleeping_restarted(pid_t tid, const char *wchan, const struct task_call *call)
{
	static const long calls[] = {
		SYS_clock_nanosleep,
		SYS_nanosleep,
		SYS_futex,
#ifdef SYS_poll
		SYS_poll,
#endif
	};
	long only = -1, loaded = loaded_nr(tid, call);
	int fitting = 0;

	if (call->nr >= ARCH_COMPAT)
		return loaded >= 0 && fits(loaded, call->args, wchan) ? loaded : -1;
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		if (!fits(calls[i], call->args, wchan) || !may_sleep_in(wchan, calls[i]))
			continue;
		if (loaded == calls[i])
			return calls[i];
		only = calls[i];
		fitting++;
	}
	return fitting == 1 ? only : -1;
}

long sleep_observe(int proc_fd, pid_t pid, struct frozen_thread *t, struct sched_clocks *clocks)
{
	struct task_call call;
	long nr;

	if (!freezer_call(proc_fd, pid, t->tid, &call))
		return -1;
	if (!call.ip) /* as copy_thread() has it for a thread that never returns to user space */
		return -1;
	nr = call.nr;
	if (arch_is_restart_syscall(nr)) {
		observe_wchan(proc_fd, pid, t);
		nr = sleeping_restarted(t->tid, t->wchan, &call);
	}
	if (sleeping_is_timed(sleeping_call(nr), call.args))
		observe_since(proc_fd, pid, t, clocks);
	return call.nr;
}

static int cannot_be_told(pid_t pid, pid_t tid, const char *wchan, struct error *e)
{
	return error_set(
		e, -ENOTSUP, E_TASK_STATE,
		"thread %d of process %d is in a system call that cannot be told (restart_syscall, in %s)",
		tid, pid, *wchan ? wchan : "an unknown place");
}

int freezer_check_sleep(const struct freezer *f, pid_t pid, pid_t tid, struct error *e)
{
	struct frozen_thread t = {.tid = tid};
	struct task_call call;

	if (!freezer_call(f->proc_fd, pid, tid, &call) || !arch_is_restart_syscall(call.nr))
		return 0;
	observe_wchan(f->proc_fd, pid, &t);
	return sleeping_restarted(tid, t.wchan, &call) < 0 ? cannot_be_told(pid, tid, t.wchan, e)
							   : 0;
}

void sleep_confirm(int proc_fd, pid_t pid, struct frozen_thread *t)
{
	uint64_t exec_start, switches;
	char path[48];

	if (!t->asleep_since)
		return;
	snprintf(path, sizeof(path), "%d/task/%d", pid, t->tid);
	/* One more: into the stop. */
	if (!read_sched(proc_fd, path, &exec_start, &switches) || switches != t->switches + 1)
		t->asleep_since = 0;
}

void sleeping_args(const struct user_regs_struct *regs, uint64_t args[6])
{
	for (unsigned int i = 0; i < 6; i++)
		args[i] = arch_call_arg(regs, i);
}

uint64_t sleeping_since(const struct freezer *f, const struct frozen_thread *t)
{
	if (!t->asleep_since || t->asleep_since >= f->interrupted_at)
		return 0;
	return f->interrupted_at - t->asleep_since;
}

static uint64_t less(uint64_t total, uint64_t slept)
{
	return slept < total ? total - slept : 0;
}

static int read_timespec(pid_t tid, uint64_t at, bool narrow, uint64_t *ret, struct error *e)
{
	struct timespec ts;
	int32_t words[2];
	int r = narrow ? mem_read(tid, at, words, sizeof(words), e)
		       : mem_read(tid, at, &ts, sizeof(ts), e);

	if (r < 0)
		return r;
	if (narrow)
		ts = (struct timespec){words[0], words[1]};
	if (ts.tv_sec < 0 || (uint64_t)ts.tv_sec > MAX_TIMESPEC_S || ts.tv_nsec < 0)
		*ret = UINT64_MAX;
	else
		*ret = (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
	return 0;
}

/* Where the kernel left the remainder of a nanosleep that was interrupted, 0 if it did not. */
static uint64_t remainder_at(long nr, const uint64_t args[6])
{
	if (sleeping_plain(nr) == SYS_nanosleep)
		return args[1];
	return sleeping_plain(nr) == SYS_clock_nanosleep ? args[3] : 0;
}

/* What is left of the time-out of a call that goes on in a new task. */
static int remaining_time(const struct freezer *f, const struct frozen_thread *t,
			  const struct sleeping_call *call, const uint64_t args[6],
			  struct resume_state *ret, struct error *e)
{
	uint64_t total, remainder = remainder_at(call->nr, args);
	int r;

	if (call->form == TIMEOUT_REGISTER_MS) {
		total = args[call->arg] * NS_PER_MS;
		if (t->syscall_eintr >= 0) {
			ret->remaining_ns = total; /* reduced already */
			return 0;
		}
	} else {
		/* The remainder was written when the sleep was interrupted, that is when we stopped
		 * the task. */
		r = read_timespec(t->tid, remainder ? remainder : args[call->arg],
				  call->form == TIMEOUT_TIMESPEC32, &total, e);
		if (r < 0)
			return r;
	}
	if (total == UINT64_MAX || remainder)
		ret->remaining_ns = total;
	else
		/*
		 * One that was interrupted before has slept longer than since it
		 * last fell asleep, by how much nobody knows: it will sleep too long.
		 */
		ret->remaining_ns = less(total, sleeping_since(f, t));
	return 0;
}

static bool is_restart_code(long result)
{
	return result == -ARCH_ERESTARTSYS || result == -ARCH_ERESTARTNOINTR ||
	       result == -ARCH_ERESTARTNOHAND || result == -ARCH_ERESTART_RESTARTBLOCK;
}

int freezer_resume_state(const struct freezer *f, const struct frozen_process *p,
			 const struct frozen_thread *t, struct resume_state *ret, struct error *e)
{
	long nr = arch_call_nr(&t->cpu->regs), result = arch_call_result(&t->cpu->regs);
	const struct sleeping_call *call;
	uint64_t args[6];
	int r;

	*ret = (struct resume_state){.regs = t->cpu->regs, .remaining_ns = UINT64_MAX};
	if (t->syscall_eintr >= 0)
		nr = t->syscall_eintr; /* the registers issue it again already */
	else if (nr < 0 || !is_restart_code(result))
		return 0;
	if (arch_is_restart_syscall(nr))
		nr = t->cpu->restarted_nr;
	if (nr < 0)
		return cannot_be_told(p->pid, t->tid, t->wchan, e);
	/*
	 * A new task has no restart block. The other codes are left to the
	 * kernel, which alone knows whether a signal that is delivered first makes the
	 * call fail with -EINTR.
	 */
	if (result == -ARCH_ERESTART_RESTARTBLOCK)
		arch_set_interrupted(&ret->regs, nr, ARCH_ERESTARTNOHAND);
	sleeping_args(&ret->regs, args);
	call = sleeping_call(nr);
	if (!sleeping_is_timed(call, args))
		return 0;
	r = remaining_time(f, t, call, args, ret, e);
	if (r < 0 || ret->remaining_ns == UINT64_MAX)
		return r;
	ret->timed = true;
	ret->timeout_form = call->form;
	ret->timeout_arg = call->arg;
	return 0;
}
