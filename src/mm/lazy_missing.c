/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/lazy_missing.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/vec.h"

/* The first range that ends behind an address. */
static size_t behind(const struct missing_vec *m, uint64_t address)
{
	return bisect(m->n, i, m->v[i].end > address);
}

/* Room for so many more, so that what follows cannot fail. */
static int reserve(struct missing_vec *m, size_t more)
{
	size_t cap = m->cap ? m->cap : 16;
	struct missing *v;

	if (m->n + more <= m->cap)
		return 0;
	while (cap < m->n + more)
		cap *= 2;
	v = reallocarray(m->v, cap, sizeof(*v));
	if (!v)
		return -ENOMEM;
	m->v = v;
	m->cap = cap;
	return 0;
}

static void insert(struct missing_vec *m, size_t at, uint64_t start, uint64_t end, uint64_t source)
{
	struct missing *before = at ? &m->v[at - 1] : NULL;

	if (before && before->end == start && before->source + (start - before->start) == source) {
		before->end = end;
		return;
	}
	memmove(&m->v[at + 1], &m->v[at], (m->n - at) * sizeof(*m->v));
	m->v[at] = (struct missing){start, end, source};
	m->n++;
}

int missing_add(struct missing_vec *m, uint64_t start, uint64_t end, uint64_t source)
{
	if (missing_drop(m, start, end) < 0 || reserve(m, 1) < 0)
		return -ENOMEM;
	insert(m, behind(m, start), start, end, source);
	return 0;
}

int missing_drop(struct missing_vec *m, uint64_t start, uint64_t end)
{
	size_t first, last;

	if (reserve(m, 1) < 0)
		return -ENOMEM;
	first = behind(m, start);
	if (first == m->n || m->v[first].start >= end)
		return 0;
	if (m->v[first].start < start) {
		const struct missing cut = m->v[first];

		m->v[first].end = start;
		first++;
		if (cut.end > end) {
			memmove(&m->v[first + 1], &m->v[first], (m->n - first) * sizeof(*m->v));
			m->v[first] =
				(struct missing){end, cut.end, cut.source + (end - cut.start)};
			m->n++;
			return 0;
		}
	}
	for (last = first; last < m->n && m->v[last].end <= end; last++)
		continue;
	if (last < m->n && m->v[last].start < end) {
		m->v[last].source += end - m->v[last].start;
		m->v[last].start = end;
	}
	if (last > first) {
		memmove(&m->v[first], &m->v[last], (m->n - last) * sizeof(*m->v));
		m->n -= last - first;
	}
	return 0;
}

int missing_move(struct missing_vec *m, uint64_t from, uint64_t to, uint64_t length)
{
	struct missing_vec moved = {};
	int r = 0;

	for (size_t i = behind(m, from); i < m->n && m->v[i].start < from + length; i++) {
		struct missing *part = vec_push(&moved);
		uint64_t start, end;

		if (!part) {
			vec_free(&moved);
			return -ENOMEM;
		}
		start = m->v[i].start > from ? m->v[i].start : from;
		end = m->v[i].end < from + length ? m->v[i].end : from + length;
		*part = (struct missing){start - from + to, end - from + to,
					 m->v[i].source + (start - m->v[i].start)};
	}
	/* two ranges may be cut in two, and those that moved come again */
	if (reserve(m, moved.n + 2) < 0)
		r = -ENOMEM;
	if (r >= 0)
		r = missing_drop(m, from, from + length);
	if (r >= 0)
		r = missing_drop(m, to, to + length);
	vec_for_each (part, &moved)
		if (r >= 0)
			r = missing_add(m, part->start, part->end, part->source);
	vec_free(&moved);
	return r;
}

int missing_copy(struct missing_vec *to, const struct missing_vec *from)
{
	if (reserve(to, from->n + 1) < 0)
		return -ENOMEM;
	if (from->n)
		memcpy(to->v, from->v, from->n * sizeof(*from->v));
	to->n = from->n;
	return 0;
}

uint64_t missing_source(const struct missing_vec *m, uint64_t address)
{
	size_t i = behind(m, address);

	if (i == m->n || m->v[i].start > address)
		return MISSING_NOTHING;
	return m->v[i].source + (address - m->v[i].start);
}

size_t missing_from(const struct missing_vec *m, bool moved, uint64_t source)
{
	return moved ? 0 : behind(m, source);
}

bool missing_next(const struct missing_vec *m, size_t *i, uint64_t source, uint64_t end,
		  struct missing *ret)
{
	for (; *i < m->n; (*i)++) {
		const struct missing *part = &m->v[*i];
		uint64_t part_end = part->source + (part->end - part->start);
		uint64_t from = part->source > source ? part->source : source;
		uint64_t to = part_end < end ? part_end : end;

		if (from >= to)
			continue;
		*ret = (struct missing){part->start + (from - part->source),
					part->start + (to - part->source), from};
		(*i)++;
		return true;
	}
	return false;
}

void missing_free(struct missing_vec *m)
{
	vec_free(m);
}
