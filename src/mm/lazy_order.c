/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/lazy_order.h"

#include <errno.h>
#include <stdlib.h>

#include "core/cleanup.h"
#include "core/vec.h"
#include "image/image.h"

/* How far a pass has come in an object. */
struct seen {
	uint64_t object, from;
	uint32_t pass;
};

struct passes {
	VEC(struct seen) seen;
	size_t at; /* of the object that was seen last */
	uint32_t pass;
};

static int by_place(const void *a, const void *b)
{
	const struct lazy_part *x = *(const struct lazy_part *const *)a;
	const struct lazy_part *y = *(const struct lazy_part *const *)b;

	if (x->place != y->place)
		return x->place < y->place ? -1 : 1;
	return x->from < y->from ? -1 : x->from > y->from;
}

static struct seen *find(struct passes *p, uint64_t object)
{
	struct seen *s;

	if (p->at < p->seen.n && p->seen.v[p->at].object == object)
		return &p->seen.v[p->at];
	for (p->at = 0; p->at < p->seen.n; p->at++)
		if (p->seen.v[p->at].object == object)
			return &p->seen.v[p->at];
	s = vec_push(&p->seen);
	if (s)
		*s = (struct seen){object, 0, 0};
	return s;
}

/* In a pass addresses ascend: who comes back to what lies before has begun another one. */
static int pass_of(struct passes *p, const struct lazy_part *part)
{
	struct seen *s = find(p, part->object);

	if (!s)
		return -ENOMEM;
	if (s->pass == p->pass && part->from <= s->from)
		p->pass++;
	s->pass = p->pass;
	s->from = part->from;
	return 0;
}

int lazy_ranks(const struct lazy_part *parts, size_t n, uint32_t *ret)
{
	_cleanup_(free_ptr) const struct lazy_part **sorted = calloc(n + 1, sizeof(*sorted));
	struct passes p = {.pass = 1};
	uint32_t least = UINT32_MAX;
	int r = sorted ? 0 : -ENOMEM;

	for (size_t i = 0; r >= 0 && i < n; i++)
		sorted[i] = &parts[i];
	if (r >= 0 && n)
		qsort(sorted, n, sizeof(*sorted), by_place);
	for (size_t i = 0; r >= 0 && i < n; i++) {
		uint32_t *rank = &ret[sorted[i] - parts];

		if (sorted[i]->place == IMAGE_PLACE_NONE) {
			*rank = 0;
		} else if (sorted[i]->place == IMAGE_PLACE_HERE) {
			*rank = p.pass + 1;
		} else {
			r = pass_of(&p, sorted[i]);
			*rank = p.pass;
		}
		least = r >= 0 && *rank < least ? *rank : least;
	}
	for (size_t i = 0; r >= 0 && i < n; i++)
		ret[i] -= least;
	vec_free(&p.seen);
	return r;
}
