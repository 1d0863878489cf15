/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_BPF_ALONE_H
#define REPRISE_FS_BPF_ALONE_H

#include "fs/bpf_rewrite.h"

/*
 * A BPF program that needs nothing but its instructions, of whatever refers to it: with what it was
 * loaded, for bpf_program_load(). -EOPNOTSUPP: it needs more (maps, something of the kernel);
 * -ENOENT: its instructions are not found. *ret is to be freed.
 */
int bpf_alone_read(struct kernel_memory *k, int proc_fd, int fd, struct bpf_source *what,
		   struct bpf_insn **ret, size_t *ret_n) must_check;

#endif
