/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_REMOTE_KERNEL_TASK_H
#define REPRISE_REMOTE_KERNEL_TASK_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "core/error.h"
#include "core/kernel_memory.h"

/*
 * What the kernel keeps about a task that sleeps in a system call, read from
 * its memory: for tasks that come to no stop.
 */
#define KERNEL_TASK_XSAVE_MAX 16384
#define KERNEL_TASK_SIGNALS   64

struct kernel_task {
	struct user_regs_struct regs;
	uint64_t segments[3]; /* of set_thread_area(2), as the processor has them */
	uint64_t stack, stack_size;
	uint64_t vfork_done; /* who waits for this task: a place on the stack of that one */

	uint64_t thread_flags, atomic_flags; /* TIF_*, PFA_* */
	uint32_t flags;			     /* PF_* */
	uint32_t pdeath_signal;
	uint64_t altstack_sp, altstack_size;
	uint32_t altstack_flags;
	uint32_t securebits;
	uint32_t rseq_size, rseq_signature;
	uint64_t rseq, clear_child_tid, timer_slack;
	uint64_t dispatch_selector, dispatch_offset, dispatch_len;
	uint64_t mempolicy, seccomp_filter, io_bitmap, iopl; /* pointers, but for the last */

	struct {
		uint64_t handler, flags, restorer, mask;
	} actions[KERNEL_TASK_SIGNALS];
	uint64_t real_expires, real_interval; /* ITIMER_REAL: CLOCK_MONOTONIC, ns */
	uint8_t real_state;		      /* 0: not set */
	uint8_t subreaper;
	uint64_t cpu_timers[2][2]; /* ITIMER_VIRTUAL and ITIMER_PROF: end and interval */

	uint32_t pkru;
	uint64_t xfeatures; /* that a register set may hold */
	uint32_t xsave_size;
	uint8_t xsave[KERNEL_TASK_XSAVE_MAX];
};

/* By the id that the task has in our pid namespace. E_TASK_VFORK: this kernel keeps it otherwise.
 */
int kernel_task_read(struct kernel_memory *k, int proc_fd, pid_t pid, pid_t tid,
		     struct kernel_task *ret, struct error *e) must_check;
/* Of a task that may run: settings only, no registers, and nothing that its threads share. */
int kernel_task_settings(struct kernel_memory *k, pid_t tid, struct kernel_task *ret,
			 struct error *e) must_check;

#endif
