/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_KERNEL_VMAS_H
#define REPRISE_CORE_KERNEL_VMAS_H

#include "core/kernel_memory.h"
#include "core/vec.h"

/*
 * The mappings of a task with the flags that the kernel keeps (vm_flags), without a walk through
 * page tables. What each bit means is this kernel's own affair; but two readings can be compared.
 */
struct kernel_vma {
	uint64_t start, end, flags;
};
struct kernel_vmas {
	VEC(struct kernel_vma) v; /* sorted */
};

int kernel_vmas_read(struct kernel_memory *k, pid_t tid, struct kernel_vmas *ret) must_check;
void kernel_vmas_free(struct kernel_vmas *l);
/* The one that begins at an address, or NULL. */
const struct kernel_vma *kernel_vmas_find(const struct kernel_vmas *l, uint64_t start);

#endif
