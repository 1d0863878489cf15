/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_LAZY_ORDER_H
#define REPRISE_MM_LAZY_ORDER_H

#include <stddef.h>
#include <stdint.h>

/*
 * How lately pages were written before the checkpoint, by where their contents stand in the image.
 * Memory that is copied in advance goes through in passes, each one behind the other, and a page
 * counts as of the last that has it; what is written after that is copied in the freeze, and stands
 * in its group. So does what is in an image and not in its parent.
 */
struct lazy_part {
	uint64_t object, from; /* where it is in memory */
	uint64_t place;	       /* IMAGE_PLACE_*, or the offset of its contents */
};

/* For each part a number, 0 for those that were left alone for the longest. -ENOMEM. */
int lazy_ranks(const struct lazy_part *parts, size_t n, uint32_t *ret);

#endif
