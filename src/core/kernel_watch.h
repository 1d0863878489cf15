/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_KERNEL_WATCH_H
#define REPRISE_CORE_KERNEL_WATCH_H

#include "core/kernel_memory.h"

/*
 * Has anybody written to certain files by system calls, or got another mapping of them? No
 * interface tells of a mapping that has come and gone again: that of a child that wrote to shared
 * memory and ended, a second one by mremap(). The times of a file do not tell calls from writes
 * through mappings, which set them too (fault_dirty_shared_page()). So two BPF programs count,
 * where tracepoints are: forks of address spaces that are watched; and in any process the calls
 * that write to, cut or map a file that is watched; in the processes that are watched also those
 * that make a second mapping of something mapped, or one that is watched longer, and ask for
 * asynchronous I/O, which comes past here. Calls that cut a file by its path count whoever it is.
 * The tasks notice nothing, but that all system calls of the machine take the way of those that are
 * traced: it is for a short time.
 */
struct kernel_watch;

/* Room for so many files and address spaces together. */
int kernel_watch_new(struct kernel_watch **ret, struct kernel_memory *k, unsigned int room,
		     struct error *e) must_check;
void kernel_watch_free(struct kernel_watch *w); /* accepts NULL */
/* A file of which we have a descriptor, that stays open: *ret stands for it. */
int kernel_watch_file(struct kernel_watch *w, struct kernel_memory *k, int fd,
		      uint64_t *ret) must_check;
/* A System V segment, of whatever IPC namespace. */
int kernel_watch_segment(struct kernel_watch *w, int id) must_check;
/* The address space of a task that stands still, and those that come of it by fork. */
int kernel_watch_space(struct kernel_watch *w, struct kernel_memory *k, pid_t tid) must_check;
/* Who has a mapping up to that address in an address space that is watched can make it longer where
 * it is. */
int kernel_watch_mapping(struct kernel_watch *w, uint64_t end) must_check;
/* How much of that there was for a file: the same number as before, if nothing. */
int kernel_watch_count(const struct kernel_watch *w, uint64_t file, uint64_t *ret) must_check;
/* How many shared mappings of a file are, or may become, writable, in whatever process
 * (i_mmap_writable). */
int kernel_writable_mappings(struct kernel_memory *k, int fd, int *ret) must_check;

#endif
