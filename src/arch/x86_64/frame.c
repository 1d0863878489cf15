/* SPDX-License-Identifier: Apache-2.0 */
#include "arch/arch.h"

#include <assert.h>
#include <string.h>

/* The frame as the kernel reads it back: struct rt_sigframe, without the siginfo that sigreturn
 * ignores. */
struct kernel_sigcontext {
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t di, si, bp, bx, dx, ax, cx, sp, ip, flags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2, fpstate;
	uint64_t reserved[8];
};
static_assert(sizeof(struct kernel_sigcontext) == 256, "struct sigcontext");

struct kernel_frame {
	uint64_t return_address;
	uint64_t uc_flags, uc_link;
	uint64_t stack_sp;
	int32_t stack_flags, pad;
	uint64_t stack_size;
	struct kernel_sigcontext sc;
	uint64_t sigmask;
};
static_assert(offsetof(struct kernel_frame, sc) == 48, "struct ucontext after the return address");
static_assert(offsetof(struct kernel_frame, sc.di) == ARCH_CALL_FRAME_ARG0, "an argument");

#define UC_FP_XSTATE	     1
#define UC_SIGCONTEXT_SS     2
#define UC_STRICT_RESTORE_SS 4
#define STACK_FLAGS_INVALID  3 /* both SS_ONSTACK and SS_DISABLE */
#define FPSTATE_AT	     ((sizeof(struct kernel_frame) + 63) & ~63UL)
#define FPSTATE_SW_RESERVED  464
#define FPSTATE_XSTATE_BV    512
#define FPSTATE_MAGIC1	     0x46505853
#define FPSTATE_MAGIC2	     0x46505845

struct fpstate_sw {
	uint32_t magic1, extended_size;
	uint64_t features;
	uint32_t size;
	uint32_t padding[7];
};
static_assert(sizeof(struct fpstate_sw) == 48, "struct _fpx_sw_bytes");

size_t arch_frame_size(uint32_t xstate_len)
{
	return (FPSTATE_AT + xstate_len + sizeof(uint32_t) + 63) & ~63UL;
}

static void fill_sigcontext(struct kernel_sigcontext *sc, const struct user_regs_struct *regs)
{
	*sc = (struct kernel_sigcontext){
		.r8 = regs->r8,
		.r9 = regs->r9,
		.r10 = regs->r10,
		.r11 = regs->r11,
		.r12 = regs->r12,
		.r13 = regs->r13,
		.r14 = regs->r14,
		.r15 = regs->r15,
		.di = regs->rdi,
		.si = regs->rsi,
		.bp = regs->rbp,
		.bx = regs->rbx,
		.dx = regs->rdx,
		.ax = regs->rax,
		.cx = regs->rcx,
		.sp = regs->rsp,
		.ip = regs->rip,
		.flags = regs->eflags,
		.cs = (uint16_t)regs->cs,
		.ss = (uint16_t)regs->ss,
	};
}

/* The extended state, with the software words by which sigreturn knows its extent. */
static void fill_fpstate(uint8_t *fp, const void *xstate, uint32_t len)
{
	uint32_t magic2 = FPSTATE_MAGIC2;
	struct fpstate_sw sw = {.magic1 = FPSTATE_MAGIC1};

	sw.size = arch_xstate_frame_size(xstate, len, &sw.features);
	sw.extended_size = sw.size + (uint32_t)sizeof(magic2);
	memcpy(fp, xstate, sw.size);
	memcpy(fp + FPSTATE_SW_RESERVED, &sw, sizeof(sw));
	memcpy(fp + sw.size, &magic2, sizeof(magic2));
}

/*
 * What the task's alternate stack is we cannot know before it has told us. sigreturn ignores an
 * impossible setting and then leaves the present one: restore_altstack() swallows all but -EFAULT.
 */
static struct kernel_frame plain_frame(uint64_t sigreturn, uint64_t sigmask)
{
	return (struct kernel_frame){
		.return_address = sigreturn,
		.uc_flags = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
		.stack_flags = STACK_FLAGS_INVALID,
		.sigmask = sigmask,
	};
}

void arch_frame_build(uint8_t *buf, size_t size, uint64_t at, uint64_t sigreturn,
		      const struct user_regs_struct *regs, uint64_t sigmask, const void *xstate,
		      uint32_t xstate_len)
{
	struct kernel_frame frame = plain_frame(sigreturn, sigmask);

	frame.uc_flags |= UC_FP_XSTATE;
	fill_sigcontext(&frame.sc, regs);
	frame.sc.fpstate = at + FPSTATE_AT;
	memset(buf, 0, size);
	memcpy(buf, &frame, sizeof(frame));
	fill_fpstate(buf + FPSTATE_AT, xstate, xstate_len);
}

void arch_call_frame_build(uint8_t *buf, const struct arch_gadgets *g, uint64_t sp,
			   uint64_t sigmask, const struct user_regs_struct *regs, uint64_t whole,
			   long nr, const uint64_t args[6])
{
	struct kernel_frame frame = plain_frame(g->sigreturn, sigmask);
	struct user_regs_struct call = *regs;

	static_assert(sizeof(frame) <= ARCH_CALL_FRAME,
		      "frames of calls stand one behind the other");
	arch_set_call(&call, g->syscall_ret, sp, nr, args);
	fill_sigcontext(&frame.sc, &call);
	if (whole) {
		frame.uc_flags |= UC_FP_XSTATE;
		frame.sc.fpstate = whole + FPSTATE_AT;
	}
	memset(buf, 0, ARCH_CALL_FRAME);
	memcpy(buf, &frame, sizeof(frame));
}

void arch_set_return(struct user_regs_struct *regs, uint64_t sigreturn, uint64_t at)
{
	arch_set_run(regs, sigreturn);
	regs->rsp = at + sizeof(uint64_t); /* as `ret` leaves it */
}
