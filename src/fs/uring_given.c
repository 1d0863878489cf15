/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers to choose from that requests have given (IORING_OP_PROVIDE_BUFFERS), one by one or many
 * at once. They are taken in the order in which they stand in a list of the kernel, and are given
 * in that order again: by requests that count among those that the ring has had.
 */
#include <errno.h>
#include <string.h>

#include "fs/uring_provided.h"

/* ---- checkpoint ---- */

static int take_buffer(struct kernel_memory *k, uint64_t at, uint16_t group, struct uring_seen *s)
{
	struct uring_given *last = s->given.n ? &s->given.v[s->given.n - 1] : NULL;
	struct uring_given b = {.group = group, .n = 1};
	int r = kernel_member(k, at, "io_buffer", "addr", &b.address, sizeof(b.address));

	if (r >= 0)
		r = kernel_member(k, at, "io_buffer", "len", &b.length, sizeof(b.length));
	if (r >= 0)
		r = kernel_member(k, at, "io_buffer", "bid", &b.first, sizeof(b.first));
	if (r < 0)
		return r;
	/* as one request can give them */
	if (last && last->group == group && last->length == b.length &&
	    last->address + (uint64_t)last->n * last->length == b.address &&
	    last->first + last->n == b.first) {
		last->n++;
		return 0;
	}
	last = vec_push(&s->given);
	if (!last)
		return -ENOMEM;
	*last = b;
	return 0;
}

int uring_given_look(struct kernel_memory *k, uint64_t list, struct uring_seen *s)
{
	int first = kernel_offset(k, "io_buffer_list", "buf_list");
	int node = kernel_offset(k, "io_buffer", "list");
	uint64_t head = list + (uint64_t)(first < 0 ? 0 : first), at = 0;
	uint16_t group = 0;
	int r = kernel_member(k, list, "io_buffer_list", "bgid", &group, sizeof(group));

	if (first < 0 || node < 0)
		return first < 0 ? first : node;
	if (r >= 0)
		r = kernel_read(k, head, &at, sizeof(at));
	for (int i = 0; r >= 0 && at != head; i++) {
		r = i < URING_GIVEN_MAX ? take_buffer(k, at - (uint64_t)node, group, s) : -EAGAIN;
		if (r >= 0)
			r = kernel_read(k, at, &at, sizeof(at));
	}
	return r;
}

int uring_given_save(const struct uring_seen *seen, Reprise__IoUring *m, struct scratch *s,
		     struct error *e)
{
	m->given = scratch_alloc(s, (seen->given.n + 1) * sizeof(*m->given));
	vec_for_each (g, &seen->given) {
		Reprise__IoUringGiven *to =
			scratch_message(s, Reprise__IoUringGiven, reprise__io_uring_given__init);

		if (!m->given || !to)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
		to->group = g->group;
		to->first = g->first;
		to->count = g->n;
		to->address = g->address;
		to->length = g->length;
		m->given[m->n_given++] = to;
	}
	return 0;
}

/* ---- restart ---- */

bool uring_given_fits(const Reprise__IoUring *m)
{
	for (size_t i = 0; i < m->n_given; i++) {
		const Reprise__IoUringGiven *g = m->given[i];

		if (g->group > UINT16_MAX || !g->count || g->count > UINT16_MAX + 1u ||
		    g->first > UINT16_MAX || g->first + g->count > UINT16_MAX + 1u)
			return false;
	}
	return true;
}

static void prepare(struct uring_shared *x, uint32_t slot, const Reprise__IoUringGiven *g)
{
	size_t step = x->m->flags & IORING_SETUP_SQE128 ? 128 : 64;
	struct io_uring_sqe *sqe = (void *)(x->sqes + slot * step);

	*sqe = (struct io_uring_sqe){.opcode = IORING_OP_PROVIDE_BUFFERS,
				     .flags = IOSQE_CQE_SKIP_SUCCESS,
				     .fd = (int)g->count,
				     .off = g->first,
				     .addr = g->address,
				     .len = g->length,
				     .buf_group = (uint16_t)g->group};
	if (!(x->m->flags & IORING_SETUP_NO_SQARRAY))
		*uring_word(x, x->layout.sq.array + 4 * slot) = slot;
}

int uring_given_restart(struct uring_counting *c, struct error *e)
{
	const Reprise__IoUring *m = c->x.m;
	uint32_t completions = *uring_word(&c->x, c->x.layout.cq.tail);
	int r = 0;

	for (size_t i = 0; i < m->n_given && r >= 0;) {
		uint32_t at = *uring_word(&c->x, c->x.layout.sq.head), n = 0;

		for (; n < m->sq_entries && i < m->n_given; n++, i++)
			prepare(&c->x, (at + n) & (m->sq_entries - 1), m->given[i]);
		r = uring_count_further(c, n, e);
	}
	/* a completion tells that one has failed */
	if (r >= 0 && *uring_word(&c->x, c->x.layout.cq.tail) != completions)
		r = error_set(e, -EIO, E_RESTORE, "cannot give buffers to an io_uring again");
	return r;
}
