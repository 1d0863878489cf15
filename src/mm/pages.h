/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_PAGES_H
#define REPRISE_MM_PAGES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"

/*
 * Contents of another task's memory, of any protection, from any thread. `tid` is any
 * living thread of the address space; proc_fd the /proc in which it is valid.
 */
int pages_read(int proc_fd, pid_t tid, uint64_t address, void *buf, size_t len,
	       struct error *e) must_check;
/*
 * The same for pages that a fork has left shared. process_vm_readv() pins the pages that it reads,
 * and since 5.19 pinning a page that may be shared gives the task a copy of its own
 * (gup_must_unshare()): a checkpoint would multiply the memory of pre-forked workers. Reading
 * /proc/TID/mem does not pin, but is slower.
 */
int pages_read_shared(int proc_fd, pid_t tid, uint64_t address, void *buf, size_t len,
		      struct error *e) must_check;
/* For memory that the task may write itself. */
int pages_write(pid_t tid, uint64_t address, const void *buf, size_t len,
		struct error *e) must_check;
/* For memory that it may not: mem_fd is /proc/TID/mem, and we trace the task. */
int pages_force(int mem_fd, uint64_t address, const void *buf, size_t len,
		struct error *e) must_check;

#endif
