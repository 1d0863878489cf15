/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_ID_SET_H
#define REPRISE_CORE_ID_SET_H

#include <errno.h>
#include <stdint.h>

#include "core/vec.h"

/* A set of object ids, which are small numbers: one byte each. */
struct id_set {
	VEC(uint8_t) seen;
};

/* 1: was added; 0: was there; -ENOMEM. Ids of an image are bounded by its number of records. */
static inline int id_set_add(struct id_set *s, uint64_t id)
{
	while (s->seen.n <= id)
		if (!vec_push(&s->seen))
			return -ENOMEM;
	if (s->seen.v[id])
		return 0;
	s->seen.v[id] = 1;
	return 1;
}

static inline void id_set_free(struct id_set *s)
{
	vec_free(&s->seen);
}

#endif
