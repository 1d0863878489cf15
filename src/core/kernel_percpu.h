/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_KERNEL_PERCPU_H
#define REPRISE_CORE_KERNEL_PERCPU_H

#include "core/kernel_memory.h"
#include "core/vec.h"

/* How far the memory of each processor is from the addresses of per-processor variables. */
struct kernel_percpu {
	VEC(uint64_t) offsets; /* of all processors that are online */
};

/* Visits every processor. -EINVAL where that is not allowed to us (cpuset). */
int kernel_percpu_find(struct kernel_memory *k, struct kernel_percpu *ret) must_check;
void kernel_percpu_free(struct kernel_percpu *p);

/*
 * How many references a struct percpu_ref counts, beside the first. What counts
 * must not be in motion.
 */
int kernel_percpu_ref(struct kernel_memory *k, const struct kernel_percpu *p, uint64_t ref,
		      int64_t *ret) must_check;

#endif
