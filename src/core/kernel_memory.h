/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_KERNEL_MEMORY_H
#define REPRISE_CORE_KERNEL_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "core/error.h"

/*
 * Reading memory of the kernel, for what no interface tells. It takes
 * CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN) in the initial user namespace and a kernel with
 * BTF, 6.1 or newer. Nothing is ever written there, and an address that is not mapped is an error,
 * no harm. What is read may change meanwhile unless something holds it still: the caller checks
 * what it can.
 */
struct kernel_memory;

int kernel_memory_open(int proc_fd, struct kernel_memory **ret, struct error *e) must_check;
void kernel_memory_free(struct kernel_memory *k); /* accepts NULL */

/* 0, or -EFAULT where nothing is. */
int kernel_read(struct kernel_memory *k, uint64_t address, void *buf, size_t len) must_check;
/*
 * Follows pointers: each offset but the last leads to one from where the one before pointed to; up
 * to 4 KiB at the last are copied. At the cost of one reading, as many as 13 offsets. One that is
 * negative is the error.
 */
int kernel_chase(struct kernel_memory *k, uint64_t from, const int *offsets, size_t n, void *buf,
		 size_t len) must_check;
/* A pointer, or 0 where nothing is. */
uint64_t kernel_pointer(struct kernel_memory *k, uint64_t address);
/* Address of the struct task_struct of a thread, which has to be kept alive by other means. */
int kernel_task(struct kernel_memory *k, pid_t tid, uint64_t *ret) must_check;
/* Where a member stands in a structure, in bytes: "task_struct", "sysvsem.undo_list". -ENOENT if
 * this kernel has no such thing. Both are literals, or live as long. A structure that may be in a
 * module is called "overlay:ovl_fs". */
int kernel_offset(struct kernel_memory *k, const char *structure, const char *member);
/* The same of several. */
struct kernel_place {
	int *at;
	const char *structure, *member;
};
int kernel_places(struct kernel_memory *k, const struct kernel_place *list, size_t n) must_check;
/* The same, and its size. */
int kernel_offset_size(struct kernel_memory *k, const char *structure, const char *member,
		       int *ret_size);
/* In bits, of a bit field as well. */
int kernel_bit(const struct kernel_memory *k, const char *structure, const char *member);
/*
 * Copies a member of the structure at `address`, which must have that very size in this kernel
 * (-EOPNOTSUPP); -ENOENT if it has none.
 */
int kernel_member(struct kernel_memory *k, uint64_t address, const char *structure,
		  const char *member, void *buf, size_t size) must_check;
/* The struct file of a descriptor of ours. */
int kernel_file(struct kernel_memory *k, int fd, uint64_t *ret) must_check;
/* The same from the struct file of an open descriptor of ours on, at most 9 offsets. */
int kernel_of_file(struct kernel_memory *k, int fd, const int *offsets, size_t n, void *buf,
		   size_t len) must_check;
/* Now, by the clock of the machine, by which all times in there are told. */
uint64_t kernel_clock_ns(const struct kernel_memory *k, clockid_t clock);
/* Size of a structure, or -ENOENT. A literal, as above. */
int kernel_size(struct kernel_memory *k, const char *structure);
/* The value of an enumerator, or -ENOENT. */
int kernel_enumerator(struct kernel_memory *k, const char *name);
/* The type of a function, by whose number programs call it, or -ENOENT. */
int kernel_function(const struct kernel_memory *k, const char *name);
/* Where a variable stands among those that each processor has of its own. */
int kernel_percpu_offset(const struct kernel_memory *k, const char *name);

#endif
