/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_USERFAULTFD_H
#define REPRISE_FS_USERFAULTFD_H

#include "core/kernel_memory.h"
#include "model/restart.h"

/* Registers memory again: the last thing of all, since whoever touches it then may wait for ever.
 */
int userfaultfd_restart_register(struct restart *r, struct error *e) must_check;

/* It watches the address space of whoever makes it, and is ours alone. device: /dev/userfaultfd, or
 * -1; flags: of userfaultfd(2). */
int userfaultfd_make(struct restart *r, struct restart_process *p, int device, uint32_t flags,
		     int *ret_fd, struct error *e) must_check;

/* ---- what the kernel knows: userfaultfd_kernel.c ---- */

struct userfaultfd_seen {
	uint64_t context, mm;
	uint32_t flags, features;
	int32_t changing;
};

/* A userfaultfd of which we have a descriptor. */
int userfaultfd_look(struct kernel_memory *k, int fd, struct userfaultfd_seen *ret) must_check;
/* The struct mm_struct of a task. */
int userfaultfd_mm(struct kernel_memory *k, pid_t tid, uint64_t *ret) must_check;
/* The struct vm_area_struct that begins there. */
int userfaultfd_vma(struct kernel_memory *k, uint64_t mm, uint64_t start, uint64_t *ret) must_check;
/* With which userfaultfd the mapping that begins there is registered. */
int userfaultfd_of(struct kernel_memory *k, uint64_t mm, uint64_t start, uint64_t *ret) must_check;

#endif
