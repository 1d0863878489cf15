/* SPDX-License-Identifier: Apache-2.0 */
#include <asm/unistd.h>

#define EINTR	4
#define __WALL	0x40000000

/*
 * long arch_go_on(unsigned long flags, int *pidfd, bool wait): the child returns, with this stack. Who has
 * called never does, and uses no stack: waits for the end of the child, if it
 * is to, and ends this thread.
 */
	.text
	.globl	arch_go_on
	.hidden	arch_go_on
	.type	arch_go_on, @function
arch_go_on:
	movl	%edx, %r9d
	movq	%rsi, %rdx
	xorl	%esi, %esi
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	movl	$__NR_clone, %eax
	syscall
	testq	%rax, %rax
	jg	1f
	ret
1:	testb	%r9b, %r9b
	je	3f
	movq	%rax, %rbx
2:	movl	$__NR_wait4, %eax
	movq	%rbx, %rdi
	xorl	%esi, %esi
	movl	$__WALL, %edx
	xorl	%r10d, %r10d
	syscall
	cmpq	$-EINTR, %rax
	je	2b
3:	movl	$__NR_exit, %eax
	xorl	%edi, %edi
	syscall
	hlt
	.size	arch_go_on, . - arch_go_on

	.section .note.GNU-stack, "", @progbits
