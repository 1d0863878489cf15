/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings of which only some operations are allowed (IORING_REGISTER_RESTRICTIONS). That can be said
 * of a ring only before it is enabled, and holds for whoever uses it from then on, us too: so all
 * that is registered comes before. Requests that are not allowed fail, and count like others.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "fs/uring.h"

/* ---- checkpoint ---- */

static int take_bits(struct kernel_memory *k, uint64_t ctx, const char *name, uint64_t ret[2])
{
	int size = 0, at = kernel_offset_size(k, "io_ring_ctx", name, &size);

	ret[0] = ret[1] = 0;
	if (at < 0)
		return at;
	if (size > 16)
		return -EOPNOTSUPP;
	return kernel_read(k, ctx + (uint64_t)at, ret, (size_t)size);
}

int uring_restrict_look(struct kernel_memory *k, uint64_t ctx, struct uring_restricted *ret)
{
	uint8_t registered = 0;
	int r = kernel_member(k, ctx, "io_ring_ctx", "restrictions.registered", &registered, 1);

	*ret = (struct uring_restricted){.registered = registered};
	if (r < 0 || !registered)
		return r;
	r = take_bits(k, ctx, "restrictions.register_op", ret->registrations);
	if (r >= 0)
		r = take_bits(k, ctx, "restrictions.sqe_op", ret->operations);
	if (r >= 0)
		r = kernel_member(k, ctx, "io_ring_ctx", "restrictions.sqe_flags_allowed",
				  &ret->allowed, 1);
	if (r >= 0)
		r = kernel_member(k, ctx, "io_ring_ctx", "restrictions.sqe_flags_required",
				  &ret->required, 1);
	return r;
}

/* io_check_restriction(), for what will be submitted again. */
static bool may_submit(const struct uring_seen *s)
{
	const struct uring_restricted *only = &s->restricted;

	vec_for_each (f, &s->flight)
		if ((f->sqe.flags & only->required) != only->required ||
		    (f->sqe.flags & ~(only->allowed | only->required)))
			return false;
	return true;
}

const char *uring_restrict_obstacle(const struct uring_seen *s)
{
	if (!s->restricted.registered || (s->flags & IORING_SETUP_R_DISABLED))
		return NULL;
	if (s->n_provided || s->given.n)
		return "restrictions are registered, and buffers to choose from, which nobody "
		       "may take again";
	/* counting would need requests without a completion */
	if (s->drain_disabled || s->overflow.n || s->sq_head - s->flight.n > s->cq_tail)
		return "restrictions are registered, and requests have ended without a completion";
	if (!may_submit(s))
		return "restrictions are registered that keep requests in flight from being asked "
		       "for again";
	return NULL;
}

int uring_restrict_save(const struct uring_seen *s, Reprise__IoUring *m, struct scratch *scratch,
			struct error *e)
{
	const struct uring_restricted *only = &s->restricted;
	Reprise__IoUringRestrictions *to;

	if (!only->registered)
		return 0;
	to = scratch_message(scratch, Reprise__IoUringRestrictions,
			     reprise__io_uring_restrictions__init);
	m->restrictions = to;
	if (to) {
		to->registrations.len = sizeof(only->registrations);
		to->operations.len = sizeof(only->operations);
		to->registrations.data =
			scratch_copy(scratch, only->registrations, to->registrations.len);
		to->operations.data = scratch_copy(scratch, only->operations, to->operations.len);
		to->flags_allowed = only->allowed;
		to->flags_required = only->required;
	}
	return to && to->registrations.data && to->operations.data
		       ? 0
		       : error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
}

/* ---- restart ---- */

bool uring_restrict_fits(const Reprise__IoUring *m)
{
	const Reprise__IoUringRestrictions *only = m->restrictions;

	return !only || (only->registrations.len == 16 && only->operations.len == 16 &&
			 only->flags_allowed <= UINT8_MAX && only->flags_required <= UINT8_MAX &&
			 !m->n_provided && !m->n_given && !m->overflow.len && !m->drain_disabled &&
			 m->sq_head - (uint32_t)m->n_requests <= m->cq_tail);
}

static void put_bits(struct io_uring_restriction *all, uint32_t *n, uint16_t kind,
		     const ProtobufCBinaryData *bits)
{
	for (uint8_t i = 0; i < bits->len * CHAR_BIT; i++)
		if (bits->data[i / CHAR_BIT] >> i % CHAR_BIT & 1)
			all[(*n)++] =
				(struct io_uring_restriction){.opcode = kind, .register_op = i};
}

int uring_restrict_restart(const struct restart_task *t, const Reprise__IoUring *m, int ring,
			   struct error *e)
{
	const Reprise__IoUringRestrictions *only = m->restrictions;
	struct io_uring_restriction all[2 * 16 * CHAR_BIT + 2];
	_cleanup_(batch_free) struct batch b = {};
	uint32_t n = 0;
	int r;

	put_bits(all, &n, IORING_RESTRICTION_REGISTER_OP, &only->registrations);
	put_bits(all, &n, IORING_RESTRICTION_SQE_OP, &only->operations);
	all[n++] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
						 .sqe_flags = (uint8_t)only->flags_allowed};
	all[n++] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
						 .sqe_flags = (uint8_t)only->flags_required};
	batch_must(&b, batch_call(&b, SYS_io_uring_register, VAL(ring),
				  VAL(IORING_REGISTER_RESTRICTIONS),
				  DATA(batch_data(&b, all, n * (uint32_t)sizeof(all[0]))), VAL(n)));
	if (!(m->flags & IORING_SETUP_R_DISABLED))
		batch_must(&b, batch_call(&b, SYS_io_uring_register, VAL(ring),
					  VAL(IORING_REGISTER_ENABLE_RINGS), VAL(0), VAL(0)));
	r = agent_run(t->process->agent, t->tid, NULL, &b, e);
	if (r < 0)
		return r;
	r = batch_failed(&b);
	return r < 0 ? 0
		     : error_errno(e, (int)batch_result(&b, r), E_RESTORE,
				   "cannot restrict an io_uring in task %d", t->vtid);
}
