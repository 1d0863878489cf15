/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_SHARED_PRIVATE_H
#define REPRISE_MM_SHARED_PRIVATE_H

#include "core/kernel_watch.h"
#include "mm/shared.h"

/* Between shared.c (while the tasks run) and shared_settle.c (in the freeze). */

/* One mapping that can be written to, or be made so. */
struct shared_map {
	pid_t tid; /* of its track */
	uint64_t start, end, offset;
	bool told; /* in the freeze: what was written through it is known */
};

struct shared_object {
	struct memory_object is;
	bool sure;		 /* its mappings are known, and nobody else has one */
	bool fresh;		 /* they have not been protected yet */
	bool settled;		 /* in the freeze: `kept` holds, and `data` is all there is */
	const char *why;	 /* it is not */
	struct stat st;		 /* as it was then */
	uint64_t watched, count; /* see core/kernel_watch.h */
	size_t now;		 /* in the freeze: so many mappings were found */
	VEC(struct shared_map) maps;
	struct span_vec data;	/* offsets of what was there when all had been protected */
	struct span_vec todo;	/* offsets, as are those of `kept` */
	struct kept_spans kept; /* sorted */
};

struct shared_objects {
	VEC(struct shared_object) v;
	struct kernel_watch *watch;
	bool all_watched; /* the address spaces of the tree */
	bool tells_holes; /* see pagemap_tells_holes() */
};

bool shared_is_of(const struct shared_object *o, const struct vma *v);
/* Why it is not known any more what was written; NULL: it is. */
const char *shared_doubt(const struct shared_objects *s, const struct shared_object *o);
/* /proc/PID/pagemap */
int shared_pagemap(const struct checkpoint *c, pid_t tid);
/* From addresses of a mapping to offsets of what it maps. */
int shared_offsets(const struct shared_map *map, const struct span_vec *from,
		   struct span_vec *to) must_check;
/* Copies of what lies in the spans are of no use any more. */
int shared_drop(struct shared_object *o, const struct span_vec *spans, struct error *e) must_check;

#endif
