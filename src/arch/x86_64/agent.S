/* SPDX-License-Identifier: Apache-2.0 */
#include "arch/wire.h"

/*
 * Executes a list of system calls. Uses no stack, so that it can run whatever
 * the stack pointer is, and no vector register, so that the extended state of
 * the task stays as it is. In .rodata: it is copied, never run in place.
 */
	.section .rodata.agent, "a"
	.balign 64

	/* Argument \i of the call at r12 goes to \reg; rbx is the header. */
	.macro argument i, reg
	movq	WIRE_CALL_ARGS + 8 * \i(%r12), \reg
	movzbl	WIRE_CALL_KINDS + \i(%r12), %eax
	cmpl	$WIRE_KIND_DATA, %eax
	jb	2f
	je	1f
	imulq	$WIRE_CALL_SIZE, \reg, \reg
	addq	WIRE_CALLS(%rbx), \reg
	movq	WIRE_CALL_RESULT(\reg), \reg
	jmp	2f
1:	addq	WIRE_DATA(%rbx), \reg
2:
	.endm

	.globl	arch_agent_code, arch_agent_code_end, arch_agent_syscall, arch_agent_raised, arch_agent_compat_syscall, arch_agent_exit
	.hidden	arch_agent_code, arch_agent_code_end, arch_agent_syscall, arch_agent_raised, arch_agent_compat_syscall, arch_agent_exit
arch_agent_code:
	leaq	arch_agent_code + AGENT_HEADER_AT(%rip), %rbx
	movq	WIRE_CALLS(%rbx), %r12
	movq	WIRE_NCALLS(%rbx), %r13
next:
	testq	%r13, %r13
	jz	done
	argument 0, %rdi
	argument 1, %rsi
	argument 2, %rdx
	argument 3, %r10
	argument 4, %r8
	argument 5, %r9
	cmpb	$0, WIRE_CALL_COMPAT(%r12)
	movq	WIRE_CALL_NR(%r12), %rax
	jne	compat
	syscall
called:
	movq	%rax, WIRE_CALL_RESULT(%r12)
	cmpq	$-4095, %rax
	jb	1f
	cmpb	$0, WIRE_CALL_MUST(%r12)
	jne	done
1:	addq	$WIRE_CALL_SIZE, %r12
	decq	%r13
	jmp	next

	/* As a 32-bit task calls: the registers in which it passes arguments. */
compat:
	movq	%rbx, %r14
	movl	%edi, %ebx
	movl	%esi, %ecx
	movl	%r10d, %esi
	movl	%r8d, %edi
	movl	%r9d, %ebp
arch_agent_compat_syscall:
	int	$0x80
	movq	%r14, %rbx
	jmp	called

	/*
	 * Stops by sending itself a signal, by the pids that are valid in its own
	 * namespace. The stop is reported with the instruction pointer at
	 * arch_agent_raised. Without a tracer the signal is ignored.
	 */
done:
	movl	$39, %eax		/* getpid */
	syscall
	movl	%eax, %r12d
	movl	$186, %eax		/* gettid */
	syscall
	movl	%r12d, %edi
	movl	%eax, %esi
	movl	WIRE_SIGNAL(%rbx), %edx
	leaq	WIRE_SIGINFO(%rbx), %r10
	movl	$297, %eax		/* rt_tgsigqueueinfo */
arch_agent_syscall:
	syscall
arch_agent_raised:
	movq	WIRE_TAIL_IP(%rbx), %rcx
	testq	%rcx, %rcx
	jz	hold
	/* Nobody traces us any more: munmap(), from the program's own text, which returns to the signal frame. */
	movq	WIRE_TAIL_SP(%rbx), %rsp
	movq	WIRE_UNMAP_AT(%rbx), %rdi
	movq	WIRE_UNMAP_LEN(%rbx), %rsi
	movl	$11, %eax
	jmp	*%rcx
hold:
	pause
	jmp	hold

	/* Where a child goes that nobody traces. */
arch_agent_exit:
	xorl	%edi, %edi
	movl	$231, %eax		/* exit_group */
	syscall
	jmp	hold
arch_agent_code_end:

	.section .note.GNU-stack, "", @progbits
