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

/* What is needed of one width of programs: an index in struct mm_restart. */
enum { WIDTH_64, WIDTH_32, WIDTHS };

struct mm_width {
	struct mm_vdso own; /* as this kernel has it; of 32-bit programs when the first is made */
	bool own_known;
	bool foreign_vdso; /* the image was made under another kernel */
	/*
	 * In a range that is free in every such address space of the image (and in ours), where the
	 * agent is: a place for the vDSO of this kernel beside a foreign one, and, up to the end,
	 * one for whole System V segments before their parts are moved.
	 */
	uint64_t free_vdso, free_shm, free_end;
};

struct mm_restart {
	struct mm_width widths[WIDTHS];
	bool keys; /* there are protection keys in the image */
	VEC(struct mapped_file) files;
	VEC(struct lazy_space *) lazy; /* what is filled later */
	int lazy_go;		       /* tells who fills that the tasks run */
	int lazy_name;		       /* a socket whose name says for whom: see mm_lazy_wait() */
	int lazy_device, lazy_helper;  /* see lazy_helper.c; -1: without */
	pid_t lazy_helper_pid;
};

static inline struct mm_width *mm_width_of(const struct restart *r, const Reprise__Mm *mm)
{
	return &r->mm->widths[mm->compat ? WIDTH_32 : WIDTH_64];
}

/* The vDSO of such programs of the image; false: there was none. */
bool mm_vdso_in_image(const struct restart *r, bool compat, struct mm_vdso *ret);
/* What is found out of the vDSO of 32-bit programs when the first one is there. */
int mm_vdso_learn(struct restart *r, pid_t pid, struct error *e) must_check;

/* The largest range between `low` and `high` that is not covered by any of the spans (sorted here).
 * Pure. */
struct span_vec;
void layout_largest_gap(struct span_vec *used, uint64_t low, uint64_t high, uint64_t *ret_start,
			uint64_t *ret_end);

#endif
