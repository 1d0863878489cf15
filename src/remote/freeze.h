/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_FREEZE_H
#define REPRISE_REMOTE_FREEZE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "arch/arch.h"
#include "core/error.h"
#include "core/procfs.h"
#include "core/vec.h"
#include "remote/ptrace.h"

/*
 * Stopping a process tree consistently: no task escapes by fork or clone while
 * we go round. The tasks are found by /proc/PID/task/TID/children, which lists
 * the children of each thread (CONFIG_PROC_CHILDREN), and the search is
 * repeated until a pass over stopped tasks finds nothing new.
 */
struct frozen_thread {
	pid_t tid;
	/*
	 * Of a leader in a group stop: the stop signal if its parent has not been told of the stop
	 * yet, else 0. As /proc/PID/stat had it when the thread was met first: a tracer changes it.
	 */
	int unreported;
	bool zombie; /* a leader that has exited while its threads go on */
	struct trace_stop stop;
	/*
	 * The call from which our stop alone made the kernel return -EINTR, -1 if none. The task
	 * has been set to issue it again, with what was left of a time-out in a register.
	 */
	long syscall_eintr;
	uint64_t asleep_since; /* CLOCK_MONOTONIC ns when it went to sleep last, or a little later;
				  0 unknown */
	char wchan[48];	       /* where it slept before it was stopped, "" unknown */
	struct cpu_state *cpu; /* as it has to be put back; NULL for a zombie */
	/*
	 * It waits in vfork() for this child, which is stopped in its place: it is not traced, and
	 * nothing can be run in it. What is known of it is in `kernel`.
	 */
	bool in_vfork;
	pid_t vfork_child;
	struct kernel_task *kernel;
	uint64_t vfork_since;	/* private: when it was first seen there, CLOCK_MONOTONIC ns */
	bool spared;		/* private: not stopped in this round */
	bool attached, stopped; /* private */
	/*
	 * private: the call that is issued again before the thread was looked at, -1 none; where
	 * any call is issued again, and the time-out in a register that it had
	 */
	long reissued;
	uint64_t reissued_at, reissued_arg;
	bool worker;	    /* private: one of the kernel's own */
	unsigned int looks; /* private: how often it was let sleep to see where */
	uint64_t switches;  /* private: voluntary context switches before it was stopped */
};

struct frozen_process {
	pid_t pid;
	pid_t ppid;	  /* parent inside the tree; for the root its real parent */
	pid_t ptid;	  /* thread of the parent whose child it is, 0 unknown */
	bool zombie;	  /* ended, not reaped: no threads are listed */
	bool job_stopped; /* in a group stop (SIGSTOP, SIGTSTP...): stays so */
	int stop_signal;
	int exit_code;			   /* wait status of a zombie */
	uint64_t start_time;		   /* /proc/PID/stat field 22, clock ticks */
	struct proc_stat stat;		   /* since all stand still */
	VEC(struct frozen_thread) threads; /* the leader first, if it lives; then by tid */
};

/* A sleep that a freeze before has interrupted; private. */
struct earlier_sleep {
	pid_t tid;
	long nr;
	uint64_t ip, sp, asleep_since;
};

struct freezer {
	int proc_fd; /* /proc as seen by us; not owned */
	pid_t root;
	pid_t self;	/* our own pid: never frozen, with what descends from it left out too */
	int timeout_ms; /* for one task to come to a stop */
	bool patient;	/* how long all stand still does not matter */
	bool hurried;	/* this thread has another priority than its own, which is `nice` */
	int nice;
	/*
	 * The root is the init of the pid namespace that we are in: signals reach it
	 * from outside only, by this function (0 or a negative errno).
	 */
	bool root_is_init;
	int (*kill)(void *arg, pid_t pid, int sig);
	void *kill_arg;
	/*
	 * Tasks that stand still by a control group come to no stop, or can execute nothing: they
	 * are let go when all have been asked to stop, and held again before they are let go by us.
	 */
	void (*hold)(void *arg, bool frozen);
	void *hold_arg;
	bool attached;
	bool moving;		 /* private: tasks came or went while we looked */
	uint64_t interrupted_at; /* CLOCK_MONOTONIC ns just before the first task was stopped */
	struct kernel_memory *memory;	      /* private: opened when first needed */
	bool memory_tried;		      /* private */
	struct error memory_error;	      /* private: why it could not be opened */
	VEC(struct frozen_process) processes; /* parents before children */
	/* private: threads of the kernel inside processes, which work for io_uring: never stopped,
	   nor listed */
	VEC(pid_t) workers;
	VEC(struct earlier_sleep) earlier; /* private */
};

/*
 * Finds the tree without stopping anything: fills `processes` with pids and
 * thread ids only. Used by `check` and before a freeze. What cannot be stopped because it waits in
 * vfork() is given some time to come out of it.
 */
int freezer_survey(struct freezer *f, struct error *e) must_check;

/* The program that a thread runs (a leader that has ended has none); by its stack pointer most are
 * known not to be 32-bit ones. */
enum arch_program freezer_program(int proc_fd, pid_t tid);
bool freezer_is_compat(int proc_fd, pid_t tid, uint64_t sp);
/* The call that a thread sleeps in, by a number as arch_call_nr() has it. */
struct task_call {
	long nr;
	uint64_t args[6], sp, ip;
};
bool freezer_call(int proc_fd, pid_t pid, pid_t tid, struct task_call *ret);

/*
 * Does a running tree's thread, in this state of /proc/TID/stat, wait in vfork()
 * for its child? It cannot be stopped until the child has called exec or ended.
 */
bool freezer_in_vfork(const struct freezer *f, pid_t pid, pid_t tid, char state);
/* Reads what the kernel keeps about a task that sleeps or is stopped. -ENOTSUP: we may not. */
struct kernel_task;
int freezer_kernel_task(struct freezer *f, pid_t pid, pid_t tid, struct kernel_task *ret,
			struct error *e) must_check;
/* The child for which that thread waits, of which `kernel` has been read; NULL: none in the tree.
 */
struct frozen_process *freezer_vfork_child(struct freezer *f, const struct frozen_process *p,
					   pid_t tid, const struct kernel_task *kernel);

/*
 * Stops every task of the tree and reads registers, extended state and masks. May be done again
 * after a thaw.
 * On failure everything stopped so far has been let go again, unharmed.
 */
int freezer_freeze(struct freezer *f, struct error *e) must_check;
/*
 * Whether it could be traced, without touching it: the kernel asks security modules (Yama, for
 * instance) the same for this as for reading its memory (PTRACE_MODE_ATTACH_REALCREDS).
 */
int freezer_check_access(const struct freezer *f, pid_t tid, struct error *e) must_check;

/*
 * Lets all go. Each thread's registers are as they were; tasks in a group stop stay in it; a signal
 * that was about to be delivered is delivered. Safe to call twice.
 */
void freezer_thaw(struct freezer *f);

/*
 * Ends them instead: SIGKILL to every process (`--kill`), or leaves each in a
 * group stop by SIGSTOP (`--stop`).
 */
int freezer_kill(struct freezer *f, struct error *e) must_check;
int freezer_stop(struct freezer *f, struct error *e) must_check;

void freezer_free(struct freezer *f); /* thaws first */

/*
 * The registers with which this thread must be resumed in a *new* task, where no restart block
 * exists, from a signal-type stop: the kernel then issues system calls that our stop
 * interrupted again. remaining_ns: for calls with a relative time-out, how much of it was left
 * (rule of src/remote/sleep.c); UINT64_MAX if not such a call.
 */
struct resume_state {
	struct user_regs_struct regs;
	bool timed; /* a relative time-out must be set anew before resuming */
	/* the last one: two words of 32 bits */
	enum {
		TIMEOUT_NONE,
		TIMEOUT_REGISTER_MS,
		TIMEOUT_TIMESPEC,
		TIMEOUT_TIMESPEC32 = 3,
	} timeout_form;
	unsigned int timeout_arg; /* index of the argument that holds it or points to it */
	uint64_t remaining_ns;
};
/* Does that call, when it is interrupted, go on by restart_syscall(2)? */
bool freezer_has_restart_block(long nr);
/* Refuses (E_TASK_STATE) what that would, of a thread that runs as far as we are concerned. */
int freezer_check_sleep(const struct freezer *f, pid_t pid, pid_t tid, struct error *e) must_check;
int freezer_resume_state(const struct freezer *f, const struct frozen_process *p,
			 const struct frozen_thread *t, struct resume_state *ret,
			 struct error *e) must_check;

#endif
