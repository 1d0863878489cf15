/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_PTRACE_H
#define REPRISE_REMOTE_PTRACE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "core/error.h"

/*
 * The one door to ptrace(2) and waitpid(2) for traced tasks. All tracing is by
 * PTRACE_SEIZE. Every call may return -ESRCH: a task can die at any step.
 */

/* What a stopped tracee reported, decoded once. */
struct trace_stop {
	enum trace_stop_kind {
		TRACE_EVENT_STOP, /* PTRACE_INTERRUPT, or a new auto-attached child */
		TRACE_GROUP_STOP, /* job control: stays stopped after detach */
		TRACE_SIGNAL,	  /* signal-delivery stop; `signal` not yet delivered */
		TRACE_SYSCALL,	  /* syscall entry or exit (PTRACE_SYSCALL) */
		TRACE_EVENT,	  /* fork, clone, exit...: `event` */
		TRACE_EXITED,	  /* gone: `status` is the wait status */
	} kind;
	int signal;
	int event;	       /* PTRACE_EVENT_* */
	unsigned long message; /* PTRACE_GETEVENTMSG for TRACE_EVENT */
	int status;
};

/* The extended state may be larger on newer processors: a larger one is refused. */
#define XSTATE_MAX 16384

struct cpu_state {
	struct user_regs_struct regs;
	uint64_t sigmask;
	/*
	 * Where a call goes on as restart_syscall(2): the one that it stands for, as far
	 * as it could be found out; -1 otherwise. Filled in by a freeze.
	 */
	long restarted_nr;
	/*
	 * Signals of faults that the thread has made itself and not taken yet: what runs in it for
	 * us must not take them. Filled in by a freeze.
	 */
	uint64_t faults;
	uint32_t xstate_len;
	uint8_t xstate[XSTATE_MAX] __attribute__((aligned(64)));
};

/* What it means that a task cannot be reached, by the negative errno. */
enum error_code trace_error_code(int err);

int trace_seize(pid_t tid, unsigned long options, struct error *e) must_check;
int trace_set_options(pid_t tid, unsigned long options, struct error *e) must_check;
int trace_interrupt(pid_t tid, struct error *e) must_check;
/*
 * Waits for the next stop of one tracee; one that is in its stop still is reported again.
 * timeout_ms < 0: for ever. -ETIMEDOUT without an error text.
 */
int trace_wait(pid_t tid, struct trace_stop *ret, int timeout_ms, struct error *e) must_check;
/*
 * Goes from any other stop to an EVENT_STOP or GROUP_STOP, without executing an instruction
 * of user code, and delivering what was about to be delivered. *stop: where the task is and
 * where it came to.
 */
int trace_settle(pid_t tid, struct trace_stop *stop, int timeout_ms, struct error *e) must_check;
/* Resumes; signal 0 delivers none. */
int trace_cont(pid_t tid, int signal, struct error *e) must_check;
int trace_syscall(pid_t tid, int signal, struct error *e) must_check;
/* -ESRCH is success: a task that has gone needs no detaching. */
int trace_detach(pid_t tid, int signal, struct error *e) must_check;

int trace_get_regs(pid_t tid, struct user_regs_struct *ret, struct error *e) must_check;
int trace_set_regs(pid_t tid, const struct user_regs_struct *regs, struct error *e) must_check;
/* NT_X86_XSTATE; *len is the room on entry and the length on return. */
int trace_get_xstate(pid_t tid, void *buf, uint32_t *len, struct error *e) must_check;
int trace_set_xstate(pid_t tid, const void *buf, uint32_t len, struct error *e) must_check;
int trace_get_sigmask(pid_t tid, uint64_t *ret, struct error *e) must_check;
int trace_set_sigmask(pid_t tid, uint64_t mask, struct error *e) must_check;
int trace_get_event(pid_t tid, unsigned long *ret, struct error *e) must_check;
int trace_get_siginfo(pid_t tid, siginfo_t *ret, struct error *e) must_check;
int trace_set_siginfo(pid_t tid, const siginfo_t *info, struct error *e) must_check;
/* Pending signals without taking them. shared: those of the whole process. Returns how many. */
int trace_peek_siginfo(pid_t tid, bool shared, uint64_t offset, siginfo_t *buf, int n,
		       struct error *e) must_check;
struct trace_rseq {
	uint64_t address; /* 0: not registered */
	uint32_t size;
	uint32_t signature;
	uint32_t flags;
};
/* All zero where the kernel lacks PTRACE_GET_RSEQ_CONFIGURATION. */
int trace_get_rseq(pid_t tid, struct trace_rseq *ret, struct error *e) must_check;
/* System call user dispatch; mode 0 where it is off. 1: the kernel does not tell. */
struct ptrace_sud_config;
int trace_get_dispatch(pid_t tid, struct ptrace_sud_config *ret, struct error *e) must_check;
/* Number of instructions of filter `index` (0 is the oldest), -ENOENT past the last. insns may be
 * NULL. */
struct sock_filter;
int trace_get_seccomp_filter(pid_t tid, unsigned long index, struct sock_filter *insns,
			     struct error *e) must_check;
int trace_get_seccomp_flags(pid_t tid, unsigned long index, uint64_t *ret,
			    struct error *e) must_check;
/* Those of set_thread_area(2), which a thread has for itself: TRACE_SEGMENTS of them. */
#define TRACE_SEGMENTS	    3
#define TRACE_SEGMENT_FIRST 12 /* GDT_ENTRY_TLS_MIN */
struct user_desc;
int trace_get_segments(pid_t tid, struct user_desc *ret, struct error *e) must_check;
int trace_set_segment(pid_t tid, const struct user_desc *segment, struct error *e) must_check;
/* Is the system call in which it was stopped one of 32-bit tasks? */
int trace_is_compat_call(pid_t tid, struct error *e) must_check;
/* All of it: registers, extended state, signal mask. */
int trace_save(pid_t tid, struct cpu_state *ret, struct error *e) must_check;

/* Memory of another task, exact lengths or an error. mem_write goes through what may be written
 * only. */
/* May it use ports (ioperm(2))? Shown where the kernel has the register set. */
bool trace_has_ports(pid_t tid);
int mem_read(pid_t tid, uint64_t addr, void *buf, size_t len, struct error *e) must_check;
int mem_write(pid_t tid, uint64_t addr, const void *buf, size_t len, struct error *e) must_check;

#endif
