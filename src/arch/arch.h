/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_ARCH_ARCH_H
#define REPRISE_ARCH_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

/*
 * All that depends on the processor. src/arch/README says what a port supplies.
 */

/* Kernel-internal results of an interrupted system call, seen in the result register at a stop. */
#define ARCH_ERESTARTSYS	   512
#define ARCH_ERESTARTNOINTR	   513
#define ARCH_ERESTARTNOHAND	   514
#define ARCH_ERESTART_RESTARTBLOCK 516

/* regs.c */

/*
 * System calls of 32-bit tasks have numbers and arguments of their own. Wherever reprise speaks of
 * the call that a task is in, such a number has this added to it, so that none is mistaken for
 * another one.
 */
#define ARCH_COMPAT	     (1L << 24)
#define ARCH_COMPAT_CALL(nr) (ARCH_COMPAT + (nr))

/* The system call that the task is in or is just leaving, -1 if it stopped in user code. */
long arch_call_nr(const struct user_regs_struct *regs);
/* As the kernel counts, for a call of that task. */
long arch_call_raw(long nr);
/* What it returned. */
long arch_call_result(const struct user_regs_struct *regs);
uint64_t arch_call_arg(const struct user_regs_struct *regs, unsigned int i);
void arch_set_call_arg(struct user_regs_struct *regs, unsigned int i, uint64_t v);
/* The task issues call `nr` once more, with the arguments that are in its registers. */
void arch_reissue(struct user_regs_struct *regs, long nr);
/* Takes that back: the call has returned that error. */
void arch_unreissue(struct user_regs_struct *regs, long nr, int code);
/* As if call `nr` had just been interrupted with that code: what is done about it when the task
 * leaves its stop. */
void arch_set_interrupted(struct user_regs_struct *regs, long nr, int code);
bool arch_is_restart_syscall(long nr);
/* The number that this code, which ends with a system call, loads for it; -1 if it is not seen to.
 */
long arch_call_loaded(const uint8_t *code, size_t len);
/* What such code of a 32-bit task may return to, as the vDSO leaves the stack (an offset). */
#define ARCH_COMPAT_RETURN_AT 12
/* 32-bit code. */
bool arch_is_compat(const struct user_regs_struct *regs);
/* Code in segments that are none of the kernel's own, or a call by numbers of x32. */
bool arch_is_odd(const struct user_regs_struct *regs);
uint64_t arch_ip(const struct user_regs_struct *regs);
void arch_set_ip(struct user_regs_struct *regs, uint64_t ip);
uint64_t arch_sp(const struct user_regs_struct *regs);
/* Bytes below the stack pointer that belong to the running function. */
size_t arch_red_zone(void);
/* Goes on at ip, outside any system call, with flags that the code there may rely on. */
void arch_set_run(struct user_regs_struct *regs, uint64_t ip);
/* Goes on at a `system call; return` at ip, returning to the word at sp. */
void arch_set_call(struct user_regs_struct *regs, uint64_t ip, uint64_t sp, long nr,
		   const uint64_t args[6]);
/* The same for a call of 32-bit tasks. */
void arch_set_compat_call(struct user_regs_struct *regs, uint64_t ip, uint64_t sp, long nr,
			  const uint64_t args[6]);

/* frame.c */

/* Bytes from the stack pointer up that arch_frame_build() fills. */
size_t arch_frame_size(uint32_t xstate_len);
/* The alignment of the address `at`. */
#define ARCH_FRAME_ALIGN 64
/*
 * Writes what has to be on the stack at address `at` so that a return with the
 * stack pointer at `at` brings back the given state by way of the rt_sigreturn
 * at `sigreturn`. `size` is arch_frame_size().
 */
void arch_frame_build(uint8_t *buf, size_t size, uint64_t at, uint64_t sigreturn,
		      const struct user_regs_struct *regs, uint64_t sigmask, const void *xstate,
		      uint32_t xstate_len);

/* The same for a system call alone, at the `system call; return` at `ip`, which returns to the word
 * at `sp`. All signals of `sigmask` are blocked meanwhile. The extended state is that of the frame
 * at `whole`, or (0) that of a task that has just begun. `buf` has ARCH_CALL_FRAME bytes. */
#define ARCH_CALL_FRAME	     320
#define ARCH_CALL_FRAME_ARG0 112 /* where its first argument stands in it */
struct arch_gadgets;
void arch_call_frame_build(uint8_t *buf, const struct arch_gadgets *g, uint64_t sp,
			   uint64_t sigmask, const struct user_regs_struct *regs, uint64_t whole,
			   long nr, const uint64_t args[6]);
/* Where a thread is right behind that system call. */
uint64_t arch_call_end(const struct arch_gadgets *g);
/* Goes on as by a return with the stack pointer at `at`, where such a frame stands. */
void arch_set_return(struct user_regs_struct *regs, uint64_t sigreturn, uint64_t at);

/* gadget.c */

struct arch_gadgets {
	uint64_t syscall_ret; /* 0: not found yet */
	uint64_t sigreturn;
};

/* The longest sequence that is looked for: pieces of text must overlap by one byte less. */
#define ARCH_GADGET_MAX 16
/* Looks for the gadgets that are missing in a piece of text that is at `base` in the task. */
void arch_gadgets_find(struct arch_gadgets *g, const uint8_t *text, size_t len, uint64_t base);
/* Code that has both, to be placed at `at`. */
size_t arch_gadgets_code(const uint8_t **ret);

/* xstate.c */

/* Length of the extended state register set of this processor and kernel. */
uint32_t arch_xstate_size(void);
/* The part of it that a signal frame must hold, given its contents. */
uint32_t arch_xstate_frame_size(const void *xstate, uint32_t len, uint64_t *features);

/*
 * Brings the kernel's own copy of a task's extended state (struct fpstate) into the form of the
 * register set. `ret` holds that of another task, with the same features. false: the copy is in
 * a form that is not known.
 */
bool arch_xstate_expand(const void *kernel, uint32_t kernel_len, uint64_t features, uint32_t pkru,
			void *ret, uint32_t ret_len);

/* compat.c */

/* Kinds of programs, by the first bytes of their files. */
enum arch_program { ARCH_PROGRAM_OTHER, ARCH_PROGRAM_64, ARCH_PROGRAM_32 };
enum arch_program arch_program(const void *header, size_t len);
#define ARCH_PROGRAM_HEADER 20

/*
 * The smallest program of either kind: it maps `len` bytes of `code` at `at`, where it begins.
 * Returns the size, at most ARCH_PROGRAM_MAX.
 */
#define ARCH_PROGRAM_MAX 8192
size_t arch_program_build(enum arch_program kind, uint64_t at, const void *code, size_t len,
			  uint8_t buf[ARCH_PROGRAM_MAX]);

/* The end of what a 32-bit task can map. */
#define ARCH_COMPAT_END 0xffffe000ul

/* Does this kernel run 32-bit programs? */
bool arch_compat_available(void);
/* Calls of 32-bit tasks, made by ourselves: where they are known to be available only. */
int arch_compat_robust_list(pid_t tid, uint64_t *head, uint64_t *len);
int arch_compat_openat(int dir, const char *path, int flags);

/* XXH3-64 (seed 0), with the widest vectors that this processor has. */
uint64_t arch_checksum(const void *data, size_t len);

/* go_on.S */

/*
 * The calling thread goes on as a child, with the same memory and stack: flags are those of
 * clone(2), with CLONE_VM and CLONE_VFORK; the pidfd may be NULL. Returns in the child, 0; or a
 * negative errno. What called never comes back: it waits for the end of the child, and ends then.
 */
long arch_go_on(unsigned long flags, int *pidfd, bool wait);

/* agent.S */

extern const uint8_t arch_agent_code[], arch_agent_code_end[];
/* The call that stops the agent, and the instruction after it; and a call of 32-bit tasks. */
extern const uint8_t arch_agent_syscall[];
extern const uint8_t arch_agent_compat_syscall[];
extern const uint8_t arch_agent_raised[];
/* Ends the process. */
extern const uint8_t arch_agent_exit[];

#endif
