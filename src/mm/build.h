/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_BUILD_H
#define REPRISE_MM_BUILD_H

#include "model/restart.h"

/* Parts of building an address space, shared by the restart files of this room. */

enum { FILES_AT_ONCE = 200 }; /* restart_send_fds() takes 253 */

/*
 * A descriptor of ours of an inode to map; stays ours. Valid until the next
 * mm_mapped_files_bound(), which closes those kept so far when there are many.
 */
int mm_mapped_file(struct restart *r, uint64_t inode, bool write, int *ret_fd,
		   struct error *e) must_check;
void mm_mapped_files_bound(struct restart *r);

/* Attaches the System V segments among the ranges that are to be made. */
struct calls;
struct span_vec;
int mm_sysv_build(struct calls *c, const Reprise__Mm *want, const struct span_vec *fresh,
		  struct error *e) must_check;

/* Puts the code of a foreign vDSO into place, patched. Nothing to do under the kernel of the image.
 */
int mm_vdso_restart(struct restart *r, struct restart_process *p, struct error *e) must_check;

#endif
