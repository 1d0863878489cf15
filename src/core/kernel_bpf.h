/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_KERNEL_BPF_H
#define REPRISE_CORE_KERNEL_BPF_H

#include <linux/bpf.h>

#include "core/kernel_memory.h"

/* For those who make BPF programs: above all that read the kernel's memory. */

#define INSN(c, d, s, o, i) \
	((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})
#define MOVE(d, s)	  INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define SET(d, i)	  INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define ADD(d, i)	  INSN(BPF_ALU64 | BPF_ADD | BPF_K, d, 0, 0, i)
#define LOAD(d, s, o)	  INSN(BPF_LDX | BPF_MEM | BPF_DW, d, s, o, 0)
#define STORE(d, o, s)	  INSN(BPF_STX | BPF_MEM | BPF_DW, d, s, o, 0)
#define CALL(f)		  INSN(BPF_JMP | BPF_CALL, 0, 0, 0, f)
#define IF_ZERO(r, o)	  INSN(BPF_JMP | BPF_JEQ | BPF_K, r, 0, o, 0)
#define IF_ABOVE(r, i, o) INSN(BPF_JMP | BPF_JGT | BPF_K, r, 0, o, i)

/* bpf(2): what it returns, or a negative errno. */
int kernel_bpf(int command, union bpf_attr *attr);
/* As bpf(2) takes it. */
static inline uint64_t kernel_bpf_pointer(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

/* What an iterator goes through. */
enum kernel_iterator {
	KERNEL_TASKS,	 /* struct bpf_iter__task */
	KERNEL_MAPPINGS, /* struct bpf_iter__task_vma */
	KERNEL_FILES,	 /* struct bpf_iter__task_file */
};

/* A program that is called with each of them. */
int kernel_bpf_load(struct kernel_memory *k, enum kernel_iterator over,
		    const struct bpf_insn *insns, size_t n) must_check;
/* Where the program over mappings is kept; negative: there is none yet, or none to be had. */
int *kernel_bpf_kept(struct kernel_memory *k);
/* For the threads of one process, or for one thread. */
int kernel_bpf_link(int program, pid_t pid, pid_t tid) must_check;
/* What is read from it comes from the program. */
int kernel_bpf_iterate(int link) must_check;

#endif
