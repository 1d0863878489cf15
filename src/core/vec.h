/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_VEC_H
#define REPRISE_CORE_VEC_H

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/*
 * A growing array of one type:
 *
 *	VEC(struct vma) vmas = {};
 *	struct vma *v = vec_push(&vmas);	NULL when out of memory; zeroed
 *	vec_for_each (v, &vmas) ...
 *	vec_free(&vmas);
 *
 * Pointers into it are valid until the next push.
 */
#define VEC(type)           \
	struct {            \
		type *v;    \
		size_t n;   \
		size_t cap; \
	}

static inline void *vec_grow_(void **v, size_t *n, size_t *cap, size_t size)
{
	if (*n == *cap) {
		size_t want = *cap ? *cap * 2 : 16;
		void *p = reallocarray(*v, want, size);

		if (!p)
			return NULL;
		*v = p;
		*cap = want;
	}
	return memset((char *)*v + (*n)++ * size, 0, size);
}

#define vec_push(vec)                                                                \
	((__typeof__((vec)->v))vec_grow_((void **)&(vec)->v, &(vec)->n, &(vec)->cap, \
					 sizeof(*(vec)->v)))

/* One that is empty has no array, with whose place nothing may be computed. */
#define vec_for_each(it, vec) \
	for (__typeof__((vec)->v + 0) it = (vec)->v; it && it < (vec)->v + (vec)->n; it++)

/*
 * Of n things in order, the first of which something is true that is true of all that follow it; n
 * if there is none:
 *
 *	size_t i = bisect(spans.n, it, spans.v[it].end > address);
 */
#define bisect(n, it, is_true)                          \
	({                                              \
		size_t low_ = 0, high_ = (n);           \
		while (low_ < high_) {                  \
			size_t it = (low_ + high_) / 2; \
			if (is_true)                    \
				high_ = it;             \
			else                            \
				low_ = it + 1;          \
		}                                       \
		low_;                                   \
	})

#define vec_free(vec)            \
	do {                     \
		free((vec)->v);  \
		(vec)->v = NULL; \
		(vec)->n = 0;    \
		(vec)->cap = 0;  \
	} while (0)

#endif
