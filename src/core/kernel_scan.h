/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_KERNEL_SCAN_H
#define REPRISE_CORE_KERNEL_SCAN_H

#include <stdbool.h>

#include "core/kernel_bpf.h"
#include "core/kernel_memory.h"

/*
 * The same few words of many threads, at the cost of some system calls for a process and not
 * for a word. What runs may change meanwhile: a value is a hint, until it is met again.
 */
#define KERNEL_PATH_MAX	   4
#define KERNEL_SCAN_VALUES 16

/* Where a path begins: at the thread; or at what it has, which without an offset is the value
 * itself, or the number of that; or at the pointer that is one of the values before. */
enum kernel_from { KERNEL_FROM_TASK, KERNEL_FROM_OBJECT, KERNEL_FROM_NUMBER, KERNEL_FROM_VALUE };

/* Each offset but the last leads to a pointer that is followed. */
struct kernel_path {
	enum kernel_from from;
	unsigned int value; /* which */
	int offsets[KERNEL_PATH_MAX];
	unsigned int n; /* 0: the value of a thread is 0 */
	bool broken;	/* this kernel has no such thing: nothing is added any more */
};
/* Adds a step; a member that this kernel does not have, or a negative offset, empties the path. */
void kernel_path_add(struct kernel_memory *k, struct kernel_path *p, const char *structure,
		     const char *member);

void kernel_path_add_offset(struct kernel_path *p, int offset);
/*
 * Where the number by which this process calls a thread stands in its struct pid (to be followed
 * from task_struct.thread_pid). *level: how far its pid namespace is below the first one.
 */
int kernel_number_offset(struct kernel_memory *k, uint64_t own_task, uint32_t *level) must_check;

struct kernel_scan;
int kernel_scan_new(struct kernel_scan **ret, struct kernel_memory *k,
		    const struct kernel_path *paths, size_t n) must_check;
/*
 * Of all threads that this process sees, only those whose first value is `is`, for
 * kernel_scan_all(): the others cost next to nothing.
 */
int kernel_scan_new_only(struct kernel_scan **ret, struct kernel_memory *k,
			 const struct kernel_path *paths, size_t n, uint64_t is) must_check;
/*
 * The same of what threads have: struct vm_area_struct, or struct file by its number. Of threads
 * with one table only the leader is asked. Those whose first value is 0 are left out, and mappings
 * with that of the one before, in the same thread.
 */
int kernel_scan_new_over(struct kernel_scan **ret, struct kernel_memory *k,
			 enum kernel_iterator over, const struct kernel_path *paths,
			 size_t n) must_check;
void kernel_scan_free(struct kernel_scan *s); /* accepts NULL */

/* The eight bytes at the end of each path; 0 where a pointer on the way leads nowhere. */
typedef void (*kernel_scan_fn)(void *arg, const uint64_t *values);
/* All threads of a process, or one of them. -ESRCH: there are none any more. */
int kernel_scan_process(struct kernel_scan *s, pid_t pid, kernel_scan_fn fn, void *arg) must_check;
int kernel_scan_all(struct kernel_scan *s, kernel_scan_fn fn, void *arg) must_check;
int kernel_scan_thread(struct kernel_scan *s, pid_t tid, kernel_scan_fn fn, void *arg) must_check;

#endif
