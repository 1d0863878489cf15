/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_LAYOUT_H
#define REPRISE_MM_LAYOUT_H

#include "mm/vdso.h"
#include "model/restart.h"

/* What this room keeps while a restart lasts. */

/* An open file that mappings are made from; the same for all processes that map it. */
struct mapped_file {
	uint64_t inode;
	bool write;
	int fd;
};

struct mm_restart {
	struct mm_vdso own;
	bool foreign_vdso; /* the image was made under another kernel */
	bool keys;	   /* there are protection keys in the image */
	VEC(struct mapped_file) files;
	/* a range that is free in every address space of the image and in ours */
	uint64_t free_start, free_end;
	VEC(struct lazy_space *) lazy; /* what is filled later */
	int lazy_go;		       /* tells who fills that the tasks run */
	int lazy_name;		       /* a socket whose name says for whom: see mm_lazy_wait() */
};

/* How the free range is used; offsets from r->agent_at, which is in the middle of it. */
#define FREE_VDSO_OFFSET (16ul << 20) /* the vDSO of this kernel, beside a foreign one */
#define FREE_SHM_OFFSET	 (1ul << 30)  /* whole System V segments, before their parts are moved */

/* The largest range not covered by any of the spans (sorted here). Pure. */
struct span_vec;
void layout_largest_gap(struct span_vec *used, uint64_t *ret_start, uint64_t *ret_end);

#endif
