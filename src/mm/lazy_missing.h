/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_LAZY_MISSING_H
#define REPRISE_MM_LAZY_MISSING_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/*
 * What an address space lacks of the contents that the image has for it: ranges of its addresses as
 * they are now, and the addresses that the contents have in the image. Those differ after mremap().
 * Sorted, and disjoint. Whatever is in no range is not to be had from the image: what is touched
 * there is zero.
 */
struct missing {
	uint64_t start, end, source;
};

struct missing_vec {
	struct missing *v;
	size_t n, cap;
};

/* All of these return -ENOMEM when out of memory, and have changed nothing then. */
int missing_add(struct missing_vec *m, uint64_t start, uint64_t end, uint64_t source) must_check;
/* Not to be had any more, or there. */
int missing_drop(struct missing_vec *m, uint64_t start, uint64_t end) must_check;
/* mremap(): what was to be had at the new place is gone. */
int missing_move(struct missing_vec *m, uint64_t from, uint64_t to, uint64_t length) must_check;
int missing_copy(struct missing_vec *to, const struct missing_vec *from) must_check;
/* Where in the image the page at an address is; MISSING_NOTHING: nowhere. */
#define MISSING_NOTHING UINT64_MAX
uint64_t missing_source(const struct missing_vec *m, uint64_t address);
/*
 * The first range from index *i on that takes contents from [source, end) of the image, cut to
 * that; *i is moved behind it. False if there is none.
 */
bool missing_next(const struct missing_vec *m, size_t *i, uint64_t source, uint64_t end,
		  struct missing *ret);
/* From which index on can there be ranges with contents from `source` on? 0 where anything has
 * moved. */
size_t missing_from(const struct missing_vec *m, bool moved, uint64_t source);
void missing_free(struct missing_vec *m);

#endif
