/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that wait: for a file to become ready, or for time to pass. The kernel keeps enough of a
 * few kinds to ask for the same again: a request in flight is known if it stands in one of its
 * lists, is of such a kind, has not done anything yet, and no other depends on it.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "fs/uring.h"

#define LIST_MAX       (1u << 20)
/* What poll(2) always reports (IO_POLL_UNMASK), and how it was asked for. */
#define POLL_ALWAYS    (POLLERR | POLLHUP | POLLNVAL | POLLRDHUP)
#define POLL_ONESHOT   (1u << 30)
#define POLL_EDGE      (1u << 31)
#define POLL_EXCLUSIVE (1u << 28)

/* ioprio of a recv: ask first whether there is anything (5.19), again and again (6.0), several
 * buffers at once (6.10); what is known besides (fixed buffers, reports of sending). */
#define RECV_MULTISHOT (1u << 1)
#define RECV_FLAGS     (IORING_RECVSEND_POLL_FIRST | RECV_MULTISHOT | 1u << 4)
#define RECV_OTHERS    0x0cu

/* One request that is looked at. */
struct flying {
	struct kernel_memory *k;
	uint64_t at; /* struct io_kiocb */
	struct uring_request *to;
	int failed;
};

static uint64_t get(struct flying *f, uint64_t at, const char *type, const char *name, size_t size)
{
	uint64_t n = 0;
	int r = kernel_member(f->k, at, type, name, &n, size);

	if (r < 0 && !f->failed)
		f->failed = r;
	return n;
}

static uint64_t of_request(struct flying *f, const char *name, size_t size)
{
	return get(f, f->at, "io_kiocb", name, size);
}

/* The part that each kind has for itself stands at the beginning of the request. */
static uint64_t of_kind(struct flying *f, const char *type, const char *name, size_t size)
{
	return get(f, f->at, type, name, size);
}

/* ---- kinds ---- */

static bool take_poll(struct flying *f, struct io_uring_sqe *sqe)
{
	uint32_t events = (uint32_t)of_kind(f, "io_poll", "events", 4);

	sqe->poll32_events = events & ~(POLL_ONESHOT | POLL_EDGE | POLL_ALWAYS);
	if (!(events & POLL_ONESHOT))
		sqe->len = IORING_POLL_ADD_MULTI;
	if (!(events & POLL_EDGE))
		sqe->len |= IORING_POLL_ADD_LEVEL;
	return !(sqe->poll32_events & POLL_EXCLUSIVE);
}

static bool take_read(struct flying *f, struct io_uring_sqe *sqe)
{
	uint64_t data = of_request(f, "async_data", 8);

	sqe->off = of_kind(f, "io_rw", "kiocb.ki_pos", 8);
	sqe->addr = of_kind(f, "io_rw", "addr", 8);
	sqe->len = (uint32_t)of_kind(f, "io_rw", "len", 4);
	sqe->rw_flags = (int)of_kind(f, "io_rw", "flags", 4);
	return data && !get(f, data, "io_async_rw", "bytes_done", 8);
}

static bool take_recv(struct flying *f, struct io_uring_sqe *sqe)
{
	uint32_t flags = (uint32_t)of_kind(f, "io_sr_msg", "flags", 2);

	bool chooses = sqe->flags & IOSQE_BUFFER_SELECT, again = flags & RECV_MULTISHOT;

	sqe->addr = chooses ? 0 : of_kind(f, "io_sr_msg", "buf", 8);
	sqe->len = (uint32_t)of_kind(f, "io_sr_msg", again ? "mshot_len" : "len", 4);
	sqe->msg_flags = (uint32_t)of_kind(f, "io_sr_msg", "msg_flags", 4);
	sqe->ioprio = flags & RECV_FLAGS;
	if (chooses)
		sqe->buf_group = (uint16_t)of_kind(f, "io_sr_msg", "buf_group", 2);
	/* what else an application can ask for changes what comes of it */
	return !(flags & RECV_OTHERS) && !of_kind(f, "io_sr_msg", "done_io", 4) &&
	       (!again || (chooses && !of_kind(f, "io_sr_msg", "mshot_total_len", 4)));
}

static bool take_accept(struct flying *f, struct io_uring_sqe *sqe)
{
	sqe->addr = of_kind(f, "io_accept", "addr", 8);
	sqe->addr2 = of_kind(f, "io_accept", "addr_len", 8);
	sqe->accept_flags = (uint32_t)of_kind(f, "io_accept", "flags", 4);
	sqe->ioprio = (uint16_t)of_kind(f, "io_accept", "iou_flags", 4);
	sqe->file_index = (uint32_t)of_kind(f, "io_accept", "file_slot", 4);
	f->to->nofile = of_kind(f, "io_accept", "nofile", 8);
	return true;
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* What is left of it; or the time of day, if that was asked for. */
static bool take_timeout(struct flying *f, struct io_uring_sqe *sqe)
{
	uint64_t data = of_request(f, "async_data", 8);
	uint32_t flags = (uint32_t)get(f, data, "io_timeout_data", "flags", 4);
	uint64_t expires = get(f, data, "io_timeout_data", "timer._softexpires", 8), now;

	sqe->len = 1;
	sqe->timeout_flags = flags;
	if ((flags & (IORING_TIMEOUT_ABS | IORING_TIMEOUT_REALTIME)) ==
	    (IORING_TIMEOUT_ABS | IORING_TIMEOUT_REALTIME)) {
		f->to->timeout_ns = expires;
	} else {
		now = now_ns(flags & IORING_TIMEOUT_BOOTTIME   ? CLOCK_BOOTTIME
			     : flags & IORING_TIMEOUT_REALTIME ? CLOCK_REALTIME
							       : CLOCK_MONOTONIC);
		f->to->timeout_ns = expires > now ? expires - now : 1;
		sqe->timeout_flags &= ~IORING_TIMEOUT_ABS;
	}
	return !(flags & ~(IORING_TIMEOUT_ABS | IORING_TIMEOUT_CLOCK_MASK |
			   IORING_TIMEOUT_ETIME_SUCCESS)) &&
	       !of_kind(f, "io_timeout", "off", 4);
}

/* ---- all of them ---- */

#define SQE_FLAGS_MASK 0x7f /* the lowest flags of a request are those that it was asked with */

static bool take_kind(struct flying *f, struct io_uring_sqe *sqe)
{
	switch (sqe->opcode) {
	case IORING_OP_POLL_ADD:
		return take_poll(f, sqe);
	case IORING_OP_READ:
		return take_read(f, sqe);
	case IORING_OP_RECV:
		return take_recv(f, sqe);
	case IORING_OP_ACCEPT:
		return take_accept(f, sqe);
	case IORING_OP_TIMEOUT:
		return take_timeout(f, sqe);
	default:
		return false;
	}
}

static int take_request(struct kernel_memory *k, uint64_t at, struct uring_seen *s)
{
	struct uring_request *to = vec_push(&s->flight);
	struct flying f = {.k = k, .at = at, .to = to};
	struct io_uring_sqe *sqe;
	uint64_t tctx;

	if (!to)
		return -ENOMEM;
	sqe = &to->sqe;
	sqe->opcode = (uint8_t)of_request(&f, "opcode", 1);
	sqe->flags = of_request(&f, "flags", 8) & SQE_FLAGS_MASK;
	sqe->user_data = of_request(&f, "cqe.user_data", 8);
	sqe->fd = -1;
	if (!take_kind(&f, sqe) || of_request(&f, "link", 8) ||
	    (sqe->flags & ~uring_flags_of(sqe->opcode)))
		s->strange++;
	if (sqe->flags & IOSQE_FIXED_FILE)
		sqe->fd = (int32_t)of_request(&f, "cqe.fd", 4);
	else if (sqe->opcode != IORING_OP_TIMEOUT)
		to->file = of_request(&f, "file", 8);
	tctx = of_request(&f, "tctx", 8);
	to->task_struct = get(&f, tctx, "io_uring_task", "task", 8);
	return f.failed;
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
	for (uint32_t i = 0; buckets && r >= 0 && i < 1u << bits; i++) {
		uint64_t at;

		r = kernel_read(k, buckets + (uint64_t)i * (uint32_t)size, &at, sizeof(at));
		while (r >= 0 && at) {
			r = s->flight.n < LIST_MAX ? take_request(k, at - (uint64_t)node, s)
						   : -EAGAIN;
			if (r >= 0)
				r = kernel_read(k, at, &at, sizeof(at));
		}
	}
	return r;
}

static int take_timed(struct kernel_memory *k, uint64_t list, struct uring_seen *s)
{
	int node = kernel_offset(k, "io_timeout", "list");
	uint64_t at;
	int r = node < 0 ? node : kernel_read(k, list, &at, sizeof(at));

	while (r >= 0 && at != list) {
		r = s->flight.n < LIST_MAX ? take_request(k, at - (uint64_t)node, s) : -EAGAIN;
		if (r >= 0)
			r = kernel_read(k, at, &at, sizeof(at));
	}
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
	if (r >= 0 && list < 0)
		r = list;
	return r < 0 ? r : take_timed(k, ctx + (uint64_t)list, s);
}
