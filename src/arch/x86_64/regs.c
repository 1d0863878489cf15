/* SPDX-License-Identifier: Apache-2.0 */
#include "arch/arch.h"

#include <string.h>
#include <sys/syscall.h>

#define SYSCALL_INSN_SIZE      2
#define X32_SYSCALL_BIT	       0x40000000UL
#define USER_CS		       0x33
#define USER32_CS	       0x23
#define USER_DS		       0x2b
#define COMPAT_RESTART_SYSCALL 0

/* Flags that code may expect to be clear when it begins: trap, direction, nested task, alignment
 * check. */
#define FLAGS_TO_CLEAR 0x44500UL

long arch_call_nr(const struct user_regs_struct *regs)
{
	/* Interrupts and exceptions enter the kernel with -1 here; so does an injected state. */
	if (arch_is_compat(regs))
		return (int)regs->orig_rax >= 0 ? ARCH_COMPAT_CALL((int)regs->orig_rax) : -1;
	return (long)regs->orig_rax >= 0 ? (long)regs->orig_rax : -1;
}

long arch_call_raw(long nr)
{
	return nr >= ARCH_COMPAT ? nr - ARCH_COMPAT : nr;
}

long arch_call_result(const struct user_regs_struct *regs)
{
	return (long)regs->rax;
}

/* What compat system calls take: the kernel looks at the lower halves only. */
static unsigned long long *compat_arg_register(struct user_regs_struct *regs, unsigned int i)
{
	switch (i) {
	case 0:
		return &regs->rbx;
	case 1:
		return &regs->rcx;
	case 2:
		return &regs->rdx;
	case 3:
		return &regs->rsi;
	case 4:
		return &regs->rdi;
	default:
		return &regs->rbp;
	}
}

static unsigned long long *arg_register(struct user_regs_struct *regs, unsigned int i)
{
	if (arch_is_compat(regs))
		return compat_arg_register(regs, i);
	switch (i) {
	case 0:
		return &regs->rdi;
	case 1:
		return &regs->rsi;
	case 2:
		return &regs->rdx;
	case 3:
		return &regs->r10;
	case 4:
		return &regs->r8;
	default:
		return &regs->r9;
	}
}

uint64_t arch_call_arg(const struct user_regs_struct *regs, unsigned int i)
{
	uint64_t v = *arg_register((struct user_regs_struct *)regs, i);

	return arch_is_compat(regs) ? (uint32_t)v : v;
}

void arch_set_call_arg(struct user_regs_struct *regs, unsigned int i, uint64_t v)
{
	*arg_register(regs, i) = v;
}

void arch_reissue(struct user_regs_struct *regs, long nr)
{
	regs->rip -= SYSCALL_INSN_SIZE;
	regs->rax = (unsigned long)arch_call_raw(nr);
	regs->orig_rax = -1UL;
}

uint64_t arch_call_end(const struct arch_gadgets *g)
{
	return g->syscall_ret + SYSCALL_INSN_SIZE;
}

void arch_unreissue(struct user_regs_struct *regs, long nr, int code)
{
	regs->rip += SYSCALL_INSN_SIZE;
	arch_set_interrupted(regs, nr, code);
}

void arch_set_interrupted(struct user_regs_struct *regs, long nr, int code)
{
	regs->orig_rax = (unsigned long)arch_call_raw(nr);
	regs->rax = (unsigned long)-(long)code;
}

bool arch_is_restart_syscall(long nr)
{
	return nr == SYS_restart_syscall || nr == ARCH_COMPAT_CALL(COMPAT_RESTART_SYSCALL);
}

long arch_call_loaded(const uint8_t *code, size_t len)
{
	/* mov $nr, %eax; or the last four bytes of the long form, mov $nr, %rax. */
	for (size_t at = len - SYSCALL_INSN_SIZE - sizeof(int32_t); at >= 3; at--) {
		int32_t nr;

		memcpy(&nr, code + at, sizeof(nr));
		if (code[at - 1] == 0xb8 ||
		    (code[at - 3] == 0x48 && code[at - 2] == 0xc7 && code[at - 1] == 0xc0))
			return nr;
	}
	return -1;
}

bool arch_is_compat(const struct user_regs_struct *regs)
{
	return regs->cs == USER32_CS;
}

bool arch_is_odd(const struct user_regs_struct *regs)
{
	if (arch_is_compat(regs))
		return regs->ss != USER_DS;
	return regs->cs != USER_CS ||
	       (arch_call_nr(regs) >= 0 && (regs->orig_rax & X32_SYSCALL_BIT));
}

uint64_t arch_ip(const struct user_regs_struct *regs)
{
	return regs->rip;
}

void arch_set_ip(struct user_regs_struct *regs, uint64_t ip)
{
	regs->rip = ip;
}

uint64_t arch_sp(const struct user_regs_struct *regs)
{
	return regs->rsp;
}

size_t arch_red_zone(void)
{
	return 128;
}

void arch_set_run(struct user_regs_struct *regs, uint64_t ip)
{
	/* All that runs for us is 64-bit code, which the processor executes in any task. */
	regs->cs = USER_CS;
	regs->rip = ip;
	regs->eflags &= ~FLAGS_TO_CLEAR;
	/*
	 * With a call number here and a -ERESTART* code left in rax, the kernel
	 * would move rip back when the task leaves its stop.
	 */
	regs->orig_rax = -1UL;
}

void arch_set_call(struct user_regs_struct *regs, uint64_t ip, uint64_t sp, long nr,
		   const uint64_t args[6])
{
	arch_set_run(regs, ip);
	regs->rsp = sp;
	regs->rax = (unsigned long)nr;
	for (unsigned int i = 0; i < 6; i++)
		arch_set_call_arg(regs, i, args[i]);
}

void arch_set_compat_call(struct user_regs_struct *regs, uint64_t ip, uint64_t sp, long nr,
			  const uint64_t args[6])
{
	arch_set_run(regs, ip);
	regs->rsp = sp;
	regs->rax = (unsigned long)arch_call_raw(nr);
	for (unsigned int i = 0; i < 6; i++)
		*compat_arg_register(regs, i) = (uint32_t)args[i];
}
