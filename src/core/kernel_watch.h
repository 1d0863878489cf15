/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_KERNEL_WATCH_H
#define REPRISE_CORE_KERNEL_WATCH_H

#include "core/kernel_memory.h"

/*
 * Has anybody got another mapping of certain files? No interface tells of one that has come and
 * gone again: a child that wrote to shared memory and ended, a second mapping by mremap(). So two
 * BPF programs count what makes one, where tracepoints are: a fork of an address space that is
 * watched, and in any process a shared mmap() of a file that is watched, mremap() that duplicates,
 * shmat() and remap_file_pages(). The tasks notice nothing, but that the system calls of the whole
 * machine take the way of those that are traced: it is for a short time.
 */
struct kernel_watch;

/* Room for so many files and address spaces together. */
int kernel_watch_new(struct kernel_watch **ret, struct kernel_memory *k, unsigned int room,
		     struct error *e) must_check;
void kernel_watch_free(struct kernel_watch *w); /* accepts NULL */
/* A file of which we have a descriptor; the address space of a task that stands still. */
int kernel_watch_file(struct kernel_watch *w, struct kernel_memory *k, int fd) must_check;
int kernel_watch_space(struct kernel_watch *w, struct kernel_memory *k, pid_t tid) must_check;
/* How much of that there was: the same number as before, if nothing. */
uint64_t kernel_watch_count(const struct kernel_watch *w);
/* How many shared mappings of a file are, or may become, writable, in whatever process
 * (i_mmap_writable). */
int kernel_writable_mappings(struct kernel_memory *k, int fd, int *ret) must_check;

#endif
