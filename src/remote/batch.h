/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_BATCH_H
#define REPRISE_REMOTE_BATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"
#include "remote/ptrace.h"

/*
 * A batch is a list of system calls that a stopped task executes on our behalf
 * in one go. An argument is a number, the address of data that travels with the
 * batch, or the result of an earlier call:
 *
 *	_cleanup_(batch_free) struct batch b = {};
 *	uint32_t out = batch_data(&b, NULL, sizeof(stack_t));
 *	int call = batch_call(&b, __NR_sigaltstack, VAL(0), DATA(out));
 *	r = agent_run(agent, tid, &b, e);
 *	if (batch_result(&b, call) == 0)
 *		const stack_t *ss = batch_at(&b, out);
 *
 * Out of memory while building is remembered and reported by agent_run().
 *
 * What must not be in a batch for a live agent: calls that sleep with a time-out, rt_sigreturn and
 * rt_sigprocmask. The first two lose the deadline of the call that the stop interrupted.
 * A signal mask is set by trace_set_sigmask().
 */
struct batch_arg {
	uint64_t v;
	enum { BATCH_VAL, BATCH_DATA, BATCH_RESULT } kind;
};

#define VAL(x)	  ((struct batch_arg){(uint64_t)(x), BATCH_VAL})
#define DATA(off) ((struct batch_arg){(off), BATCH_DATA})
#define RESULT(i) ((struct batch_arg){(uint64_t)(i), BATCH_RESULT})

struct batch;
struct batch_wire_call; /* as the agent reads it: arch/wire.h */

struct batch_pointer {
	uint32_t at, target;
};

struct batch {
	struct batch_wire_call *calls;
	uint32_t ncalls, calls_cap;
	uint8_t *data;
	uint32_t data_len, data_cap;
	struct batch_pointer *pointers;
	uint32_t npointers, pointers_cap;
	int failed; /* -ENOMEM or -E2BIG while building */
};

/* Reserves len bytes (16-byte aligned), copied from init or zero. Returns the offset. Some 60 KiB
 * in all. */
uint32_t batch_data(struct batch *b, const void *init, uint32_t len);
/*
 * Where that data is on our side, until data is added: before the run to fill in, after it
 * to read. NULL if building has failed.
 */
void *batch_at(struct batch *b, uint32_t offset);
/*
 * Stores at data offset `at` (8 bytes) the address that data `target` will have
 * in the task: for structures that point to others (iovec, msghdr, clone_args,
 * sock_fprog).
 */
void batch_pointer(struct batch *b, uint32_t at, uint32_t target);
/* Adds a call with up to six arguments and returns its index. */
#define batch_call(b, nr, ...)                                                                \
	batch_call_((b), (nr), (const struct batch_arg[]){__VA_ARGS__ __VA_OPT__(, ) VAL(0)}, \
		    sizeof((const struct batch_arg[]){__VA_ARGS__ __VA_OPT__(, ) VAL(0)}) /   \
				    sizeof(struct batch_arg) -                                \
			    1)
int batch_call_(struct batch *b, long nr, const struct batch_arg *args, unsigned int nargs);
/* Captive agents only: the call is made as a 32-bit task does it, by the numbers of those. */
void batch_compat(struct batch *b, int call);
/* Ends the batch at this call if it fails; later calls then report -ECANCELED. */
void batch_must(struct batch *b, int call);
/* The result of a call after the run: what the kernel returned, negative errno on failure. */
long batch_result(const struct batch *b, int call);
/* The first call marked by batch_must() that failed, or -1. */
int batch_failed(const struct batch *b);
/* The system call number of a call, for messages. */
long batch_number(const struct batch *b, int call);
/* This thread executes it itself. */
int batch_run_here(struct batch *b, struct error *e) must_check;
/* Ready for the next use; keeps its memory. */
void batch_reset(struct batch *b);
void batch_free(struct batch *b);

/*
 * An agent is the means by which the tasks of one address space execute
 * batches. There are two kinds.
 *
 * A *live* agent borrows a task that will go on running: it must be stopped in
 * a signal-type stop, and is left in one. At every instant the task is in a
 * state from which it goes on by itself, exactly where it was, if we die. No
 * descriptor, limit or stack of the task is needed. Where no memory can be
 * mapped in the task (RLIMIT_AS) calls are made one at a time.
 *
 * A *captive* agent serves a task that we made, that has never run application
 * code and that dies with us (PTRACE_O_EXITKILL). Its stops must leave signal
 * dispositions, masks and queues alone: by the last batches the application's
 * own are in place (SIGTRAP blocked or ignored, SIGCONT pending). A blocked or
 * ignored SIGTRAP from an int3 would reset the action, see force_sig_info_to_task().
 * New children and threads are made with CLONE_PTRACE, which attaches them
 * without an event stop in the parent.
 */
struct agent;

/*
 * Borrows the address space of `tid`. `saved` is what trace_save() read of it
 * and must outlive the agent. proc_fd: a descriptor of the /proc in which tid is valid.
 * `found` may be NULL: what was found in one task is looked for in the next one first, since
 * relatives have the same code at the same place. All zero at the beginning.
 */
struct agent_found {
	uint64_t syscall_ret, sigreturn;
};
/* What is likely to be found when the task stands still, of one that runs; nothing is changed in
 * it, and nothing is said if it cannot be found out. */
void agent_look_ahead(int proc_fd, pid_t tid, struct agent_found *found);
/* status: /proc/TID/status, if it has been read since the task was stopped; else NULL. */
int agent_borrow(struct agent **ret, int proc_fd, pid_t tid, const struct cpu_state *saved,
		 const char *status, struct agent_found *found, struct error *e) must_check;
/*
 * The same in two steps. Nothing is executed by the first one, which may be taken by a thread that
 * is not the tracer. Nobody else may have borrowed that address space, until it is returned. When
 * the second one fails nothing is left (*a is NULL).
 */
int agent_prepare(struct agent **ret, int proc_fd, pid_t tid, const struct cpu_state *saved,
		  const char *status, struct agent_found *found, struct error *e) must_check;
int agent_complete(struct agent **a, struct error *e) must_check;
/*
 * Two steps that take a task some time, begun without waiting for their ends: that of
 * agent_complete(), and that of agent_return(). Where there is nothing to gain these do nothing.
 * Only what needs no task may be done with it until then.
 */
int agent_begin(struct agent *a, struct error *e) must_check;
int agent_leave(struct agent *a, struct error *e) must_check;
/* fn is called once, while the next batch of a live agent runs. It may deal with other agents. */
void agent_meanwhile(struct agent *a, void (*fn)(void *arg), void *arg);
/* The code of a captive agent, to be placed at `at` (page aligned, AGENT_SIZE bytes, rwx). */
#define AGENT_SIZE (64 * 1024)
void agent_place(void *at);
int agent_captive(struct agent **ret, pid_t tid, uint64_t at, struct error *e) must_check;
uint64_t agent_address(const struct agent *a); /* 0: none is mapped */

/*
 * Executes the batch in thread `tid` of that address space. For a live agent `saved` is what
 * trace_save() read of that thread; registers and mask are its own again when the agent has been
 * returned. NULL for a captive one. Returns 0 when the batch was executed, whatever its calls
 * returned.
 */
int agent_run(struct agent *a, pid_t tid, const struct cpu_state *saved, struct batch *b,
	      struct error *e) must_check;

/* One call, for the cases where a batch would be noise. Returns its result. */
long agent_syscall(struct agent *a, pid_t tid, const struct cpu_state *saved, struct error *e,
		   long nr, const uint64_t args[6]) must_check;

/*
 * Captive only: the task executes the smallest program of 32 or 64 bits, which is mapped at
 * `boot_at`; then the agent stands at `at`. All else that the kernel has put into the new address
 * space is still there. Descriptor `keep` stays, though it is close-on-exec.
 */
int agent_change_program(struct agent *a, pid_t tid, bool compat, uint64_t boot_at, uint64_t at,
			 int keep, struct error *e) must_check;
/*
 * Captive only: begins a system call that sleeps with a relative time-out (nanosleep,
 * clock_nanosleep, poll, futex), and interrupts it: the kernel now holds what it needs to go on
 * with it (struct restart_block), which is what a thread has that was stopped in such a call.
 * *asleep: it is so, and registers with -ERESTART_RESTARTBLOCK may be set; false: the call returned
 * by itself. timespec_arg: the argument that takes the address of *ts, -1 for none; is_narrow: in
 * words of 32 bits.
 */
struct timespec;
int agent_begin_sleep(struct agent *a, pid_t tid, long nr, uint64_t args[6], int timespec_arg,
		      const struct timespec *ts, bool is_narrow, bool *asleep,
		      struct error *e) must_check;
/*
 * Captive only: the thread makes a child by clone3() with these arguments, CLONE_VFORK among them,
 * and waits for it: it executes nothing more for us. What is set of its registers now is what
 * it goes on with when the wait is over, but for the result of the call, which is the pid of the
 * child. options: the PTRACE_O_* that it has. set_tid: the pid to choose, 0: any. Returns 0 and
 * *child, as we know it, or what the call failed with.
 */
struct clone_args;
int agent_vfork(struct agent *a, pid_t tid, const struct clone_args *args, pid_t set_tid,
		unsigned long options, pid_t *child, struct error *e) must_check;
/* Ends that child, and brings the thread back to where it executes for us: the child has to be
 * reaped there. */
int agent_vfork_undo(pid_t tid, pid_t child, struct error *e) must_check;
/*
 * Captive only: the agent's mapping leaves the address space, by a munmap(2) in thread `tid`, which
 * is then in an EVENT_STOP; all other threads must have their final registers by then. Those of
 * `tid` are whatever they are afterwards: set them next.
 */
int agent_unmap(struct agent *a, pid_t tid, struct error *e) must_check;
/*
 * Captive only: prepares the end of the task, which happens as soon as it is resumed (trace_cont()
 * or trace_detach()): by exit_group(status) when sig is 0, else by that signal with its default
 * action, unblocked.
 */
enum agent_end {
	AGENT_END_PROCESS, /* without a core file */
	AGENT_END_CORE,	   /* with one, if limits allow it */
	AGENT_END_THREAD,  /* exit(2) of this thread alone */
};
int agent_exit(struct agent *a, pid_t tid, int status, int sig, enum agent_end how,
	       struct error *e) must_check;

/*
 * Live only: the same for a call whose result, if it works, is known to be `undo_arg`. Until the
 * next call of this agent the task undoes it, by call `undo` with that argument, if we die.
 */
long agent_syscall_undone(struct agent *a, pid_t tid, const struct cpu_state *saved,
			  struct error *e, long nr, const uint64_t args[6], long undo,
			  uint64_t undo_arg) must_check;

/*
 * Live only: calls that undo what is going to be changed for a moment. If we die thread `tid`
 * executes them before it goes on. value_arg: the argument that takes the address of `value`; 0:
 * none does. Returns 1; 0: it cannot be promised, since it was not the last to be borrowed or has
 * seccomp filters.
 */
struct agent_promise {
	long nr;
	uint64_t args[6];
	unsigned int value_arg;
	int value;
};
int agent_promise(struct agent *a, pid_t tid, const struct agent_promise *calls, size_t n,
		  struct error *e) must_check;
/*
 * The same while it makes a call, and afterwards, if that works. The call may have the kernel write
 * to arguments of what is promised: the first one of call i stands at agent_promise_arg_at().
 */
long agent_syscall_promised(struct agent *a, pid_t tid, const struct cpu_state *saved,
			    struct error *e, long nr, const uint64_t args[6],
			    const struct agent_promise *calls, size_t n) must_check;
uint64_t agent_promise_arg_at(const struct agent *a, size_t i);
/* It has been undone. */
int agent_absolve(struct agent *a, struct error *e) must_check;

/*
 * Live only: a copy of the address space of `tid`, as fork makes it, held by a process that stands
 * still and dies with us. It has no open file, and is a session of its own; the application is not
 * its parent, whoever takes in orphans is. *copy: its (captive) agent. Signals, descriptors and
 * children of the application are as before. Of mappings that have an advice the copy gets what is
 * said of them; afterwards, and if we die, they have the other one, which they must have now.
 */
struct agent_advice {
	uint64_t start, end;
	int during, after; /* MADV_* */
};
#define AGENT_ADVICES_MAX 7
int agent_copy(struct agent *a, pid_t tid, const struct cpu_state *saved,
	       const struct agent_advice *advices, size_t n, pid_t *ret, struct agent **copy,
	       struct error *e) must_check;
/* While it was made it had our priority, which may be another one by now. */
void agent_copy_calm(pid_t pid);
/* Ends it, and frees. Accepts NULL. */
void agent_copy_end(pid_t pid, struct agent *copy);

/* Gives everything back (live) and frees. Accepts NULL. A task that died meanwhile is no error. */
int agent_return(struct agent *a, struct error *e);

#endif
