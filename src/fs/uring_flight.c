/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that wait: for a file to become ready, for a futex, or for time to pass; and those that
 * are linked to them, whose turn has not come. The kernel keeps enough of most kinds to ask for the
 * same again (uring_take.c): a request in flight is known if it stands in one of its lists, is of
 * such a kind and has not done anything yet.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/uring_flight.h"

#define LIST_MAX       (1u << 20)
#define SQE_FLAGS_MASK 0x7f /* the lowest flags of a request are those that it was asked with */

/* ---- what it was asked with and that has changed since ---- */

static uint64_t bit_of(struct kernel_memory *k, const char *name)
{
	int n = kernel_enumerator(k, name);

	return n >= 0 && n < 64 ? 1ull << n : 0;
}

static const struct uring_bits *bits(struct kernel_memory *k, struct uring_bits *b)
{
	if (!b->known)
		*b = (struct uring_bits){.known = true,
					 .creds = bit_of(k, "REQ_F_CREDS_BIT"),
					 .buffer_node = bit_of(k, "REQ_F_BUF_NODE_BIT"),
					 .buffer_held = bit_of(k, "REQ_F_BUFFER_SELECTED_BIT") |
							bit_of(k, "REQ_F_BUFFER_RING_BIT")};
	return b;
}

/* Does the slot still have what the request was given from it? */
static bool has_slot(struct flying *f, uint64_t array, uint32_t n, uint32_t slot,
		     const char *member)
{
	uint64_t is = 0;
	int r = slot < n ? kernel_read(f->k, array + 8ull * slot, &is, sizeof(is)) : 0;

	f->failed = f->failed ? f->failed : r;
	return is && is == uring_of_request(f, member, 8);
}

/* It goes on with the file that it was asked for: by its descriptor, if it has one. */
static void look_at_file(struct flying *f, struct io_uring_sqe *sqe)
{
	uint32_t slot = (uint32_t)uring_of_request(f, "cqe.fd", 4);

	if ((sqe->flags & IOSQE_FIXED_FILE) &&
	    !has_slot(f, f->seen->files, f->seen->n_files, slot, "file_node"))
		sqe->flags &= (uint8_t)~IOSQE_FIXED_FILE;
	if (sqe->flags & IOSQE_FIXED_FILE)
		sqe->fd = (int32_t)slot;
	else
		f->to->file = uring_of_request(f, "file", 8);
}

static bool are_of_task(struct flying *f, uint64_t creds)
{
	uint64_t tctx = uring_of_request(f, "tctx", 8);
	uint64_t task = uring_get(f, tctx, "io_uring_task", "task", 8);
	uint64_t cred = uring_get(f, task, "task_struct", "cred", 8);
	bool same = false;
	int r = uring_same_credentials(f->k, creds, cred, &same);

	f->failed = f->failed ? f->failed : r;
	return same;
}

/* Its task's, or those that it was asked to take of the ones that are registered. */
static bool has_credentials(struct flying *f)
{
	uint64_t creds = uring_of_request(f, "creds", 8);

	if (are_of_task(f, creds))
		return true;
	f->to->sqe.personality = (uint16_t)uring_personality_of(f->seen, creds);
	return f->to->sqe.personality;
}

/* Of a restart they will be ours, for workers of the kernel carry out what is held back. */
static bool has_ours(struct flying *f)
{
	uint64_t self = 0;
	int r = kernel_task(f->k, (pid_t)syscall(SYS_gettid), &self);

	f->failed = f->failed ? f->failed : r;
	return are_of_task(f, uring_get(f, self, "task_struct", "cred", 8));
}

/* Returns what is in the way, or NULL. */
static const char *look_at_changes(struct flying *f, uint64_t flags, struct uring_seen *s)
{
	const struct uring_bits *b = bits(f->k, &s->bits);

	if ((flags & b->creds) && !has_credentials(f))
		return "with other credentials than its task has now, which are not registered";
	if (flags & b->buffer_held)
		return "for which a buffer has been taken";
	if ((flags & b->buffer_node) &&
	    !has_slot(f, s->buffers, s->n_buffers, (uint32_t)uring_of_request(f, "buf_index", 2),
		      "buf_node"))
		return "for a registered buffer whose slot has something else by now";
	return NULL;
}

/* ---- all of them ---- */

/* What is held back has been given its turn by none, nor have those that are linked to it. */
static bool is_issued(const struct uring_request *to, bool held)
{
	/* what a time-out limits is what stands before it, and goes on */
	if (held || (to->linked && to->sqe.opcode != IORING_OP_LINK_TIMEOUT))
		return false;
	return !to->linked || !to[-1].linked;
}

static int take_one(struct kernel_memory *k, uint64_t at, bool linked, bool held,
		    struct uring_seen *s, uint64_t *ret_link)
{
	struct uring_request *to = vec_push(&s->flight);
	struct flying f = {.k = k, .at = at, .to = to, .seen = s};
	struct io_uring_sqe *sqe;
	const char *why;
	uint64_t flags;

	if (!to)
		return -ENOMEM;
	sqe = &to->sqe;
	to->linked = linked;
	flags = uring_of_request(&f, "flags", 8);
	sqe->opcode = (uint8_t)uring_of_request(&f, "opcode", 1);
	/* The kernel moves the mark to the head of a chain (io_init_drain()). */
	sqe->flags = flags & (held && !linked ? SQE_FLAGS_MASK : SQE_FLAGS_MASK & ~IOSQE_IO_DRAIN);
	sqe->user_data = uring_of_request(&f, "cqe.user_data", 8);
	sqe->fd = -1;
	f.issued = is_issued(to, held);
	/* A worker would have the credentials of the restart; who waits needs none. */
	if (f.issued)
		sqe->flags &= (uint8_t)~IOSQE_ASYNC;
	why = look_at_changes(&f, flags, s);
	if (held && !why && !has_ours(&f))
		why = "that waits for all before it (IOSQE_IO_DRAIN), of a task that has other "
		      "credentials than reprise";
	if (!uring_take(&f) || why)
		s->strange++;
	s->why = why ? why : s->why;
	/* numbers of descriptors are looked at when the turn of a request has come */
	if (uring_kind_has_file(sqe->opcode) && (linked || held))
		sqe->fd = (int32_t)uring_of_request(&f, "cqe.fd", 4);
	else if (uring_kind_has_file(sqe->opcode))
		look_at_file(&f, sqe);
	to->task_struct =
		uring_get(&f, uring_of_request(&f, "tctx", 8), "io_uring_task", "task", 8);
	/* each has a second one, which tells that its memory is free again */
	if (sqe->opcode == IORING_OP_SEND_ZC || sqe->opcode == IORING_OP_SENDMSG_ZC)
		s->n_notices++;
	*ret_link = uring_of_request(&f, "link", 8);
	return f.failed < 0 ? f.failed : 0;
}

/* One and all that is linked to it. */
static int take_request(struct kernel_memory *k, uint64_t at, bool held, struct uring_seen *s)
{
	bool linked = false;
	int r = 0;

	for (uint64_t next = 0; at && r >= 0; at = next, linked = true)
		r = s->flight.n < LIST_MAX ? take_one(k, at, linked, held, s, &next) : -EAGAIN;
	return r;
}

/* A list without an end of its own (struct hlist_head). */
static int take_list(struct kernel_memory *k, uint64_t head, uint64_t node, struct uring_seen *s)
{
	uint64_t at;
	int r = kernel_read(k, head, &at, sizeof(at));

	while (r >= 0 && at) {
		r = take_request(k, at - node, false, s);
		if (r >= 0)
			r = kernel_read(k, at, &at, sizeof(at));
	}
	return r;
}

/* Those that wait for a file are in a hash table of lists (struct hlist_head). */
static int take_polled(struct kernel_memory *k, uint64_t buckets, uint32_t bits,
		       struct uring_seen *s)
{
	int size = kernel_size(k, "io_hash_bucket"),
	    node = kernel_offset(k, "io_kiocb", "hash_node");
	int r = size < 0 ? size : node < 0 ? node : 0;

	if (r >= 0 && bits > 20)
		r = -EOPNOTSUPP;
	for (uint32_t i = 0; buckets && r >= 0 && i < 1u << bits; i++)
		r = take_list(k, buckets + (uint64_t)i * (uint32_t)size, (uint64_t)node, s);
	return r;
}

/* One whose time comes meanwhile leaves the list, and is followed by itself (list_del_init()). */
static int take_timed(struct kernel_memory *k, uint64_t list, struct uring_seen *s)
{
	int node = kernel_offset(k, "io_timeout", "list");
	uint64_t at, next;
	int r = node < 0 ? node : kernel_read(k, list, &at, sizeof(at));

	for (; r >= 0 && at != list; at = next) {
		r = take_request(k, at - (uint64_t)node, false, s);
		if (r >= 0)
			r = kernel_read(k, at, &next, sizeof(next));
		if (r >= 0 && next == at)
			r = -EAGAIN;
	}
	return r;
}

/* Those that wait for a futex or a child (6.7). `of`: a literal. */
static int take_waiting(struct kernel_memory *k, uint64_t ctx, const char *of, struct uring_seen *s)
{
	int list = kernel_offset(k, "io_ring_ctx", of);
	int node = kernel_offset(k, "io_kiocb", "hash_node");

	if (list == -ENOENT)
		return 0;
	if (list < 0 || node < 0)
		return list < 0 ? list : node;
	return take_list(k, ctx + (uint64_t)list, (uint64_t)node, s);
}

/*
 * Those that wait for all before them (IOSQE_IO_DRAIN), and what came after them, in their order.
 * The first waits like one that was asked to, whether it was or not (io_queue_deferred()).
 */
static int take_held(struct kernel_memory *k, uint64_t ctx, struct uring_seen *s)
{
	int list = kernel_offset(k, "io_ring_ctx", "defer_list");
	int node = kernel_offset(k, "io_defer_entry", "list");
	uint64_t end = ctx + (uint64_t)list, at, request;
	size_t first = s->flight.n;
	int r = list < 0 ? list : node < 0 ? node : kernel_read(k, end, &at, sizeof(at));

	while (r >= 0 && at != end) {
		r = kernel_member(k, at - (uint64_t)node, "io_defer_entry", "req", &request,
				  sizeof(request));
		if (r >= 0)
			r = take_request(k, request, true, s);
		if (r >= 0)
			r = kernel_read(k, at, &at, sizeof(at));
	}
	s->holds = s->flight.n > first;
	if (r >= 0 && s->holds)
		s->flight.v[first].sqe.flags |= IOSQE_IO_DRAIN;
	return r;
}

int uring_flight(struct kernel_memory *k, uint64_t ctx, struct uring_seen *s)
{
	int list = kernel_offset(k, "io_ring_ctx", "timeout_list");
	uint64_t buckets;
	uint32_t bits;
	int r = kernel_member(k, ctx, "io_ring_ctx", "cancel_table.hbs", &buckets, 8);

	if (r >= 0)
		r = kernel_member(k, ctx, "io_ring_ctx", "cancel_table.hash_bits", &bits, 4);
	if (r >= 0)
		r = take_polled(k, buckets, bits, s);
	if (r >= 0)
		r = take_waiting(k, ctx, "futex_list", s);
	if (r >= 0)
		r = take_waiting(k, ctx, "waitid_list", s);
	if (r >= 0 && list < 0)
		r = list;
	if (r >= 0)
		r = take_timed(k, ctx + (uint64_t)list, s);
	return r < 0 ? r : take_held(k, ctx, s);
}
