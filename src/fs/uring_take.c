/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel keeps of a request that has not done anything yet, turned back into what it was
 * asked with. Vectors, headers of messages and addresses have been copied: the application may have
 * used their memory for something else since, so that they come with the request.
 */
#include <errno.h>
#include <poll.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "fs/uring_flight.h"

/* What poll(2) always reports (IO_POLL_UNMASK), and how it was asked for. */
#define POLL_ALWAYS    (POLLERR | POLLHUP | POLLNVAL | POLLRDHUP)
#define POLL_ONESHOT   (1u << 30)
#define POLL_EDGE      (1u << 31)
#define POLL_EXCLUSIVE (1u << 28)

/* ioprio of a recv or send: ask first whether there is anything (5.19), again and again (6.0),
 * several buffers at once (6.10); what is known besides (fixed buffers, reports of sending). */
#define RECV_MULTISHOT (1u << 1)
#define RECV_FLAGS     (IORING_RECVSEND_POLL_FIRST | RECV_MULTISHOT | 1u << 4)
#define RECV_OTHERS    0x0cu

/* The same of sending without copies (6.0): from a registered buffer, and whether it was copied. */
#define SEND_FIXED    (1u << 2)
#define SEND_ZC_FLAGS (IORING_RECVSEND_POLL_FIRST | SEND_FIXED | 1u << 3)

#define SIN6_LEN_RFC2133 24 /* without sin6_scope_id */

/* struct iov_iter: of one place, of several (6.4). */
#define ITER_UBUF  0
#define ITER_IOVEC 1

uint64_t uring_get(struct flying *f, uint64_t at, const char *type, const char *name, size_t size)
{
	uint64_t n = 0;
	int r = kernel_member(f->k, at, type, name, &n, size);

	if (r < 0 && !f->failed)
		f->failed = r;
	return n;
}

uint64_t uring_of_request(struct flying *f, const char *name, size_t size)
{
	return uring_get(f, f->at, "io_kiocb", name, size);
}

/* The part that each kind has for itself stands at the beginning of the request. */
uint64_t uring_of_kind(struct flying *f, const char *type, const char *name, size_t size)
{
	return uring_get(f, f->at, type, name, size);
}

/* ---- what comes with a request ---- */

/* Returns where it stands in the memory of the request. */
uint32_t uring_put(struct flying *f, const void *data, size_t size)
{
	struct uring_request *to = f->to;
	uint32_t at = (to->memory_size + 7) & ~7u;
	uint8_t *more;

	if (size > URING_MEMORY_MAX - at) {
		f->failed = f->failed ? f->failed : -E2BIG;
		return 0;
	}
	more = realloc(to->memory, at + size + 1);
	if (!more) {
		f->failed = f->failed ? f->failed : -ENOMEM;
		return 0;
	}
	memset(more + to->memory_size, 0, at - to->memory_size);
	memcpy(more + at, data, size);
	to->memory = more;
	to->memory_size = at + (uint32_t)size;
	return at;
}

/* The word at `at` in that memory is the place of what stands there. */
static void put_pointer(struct flying *f, uint32_t at)
{
	if (f->to->n_pointers < URING_POINTERS_MAX)
		f->to->pointers[f->to->n_pointers++] = at;
	else
		f->failed = f->failed ? f->failed : -E2BIG;
}

void uring_put_patch(struct flying *f, uint64_t address, uint32_t at, uint32_t size)
{
	struct uring_patch *p = vec_push(&f->to->patches);

	if (p)
		*p = (struct uring_patch){address, at, size};
	else
		f->failed = -ENOMEM;
}

static uint32_t put_vector(struct flying *f, uint64_t vec, uint64_t n)
{
	struct iovec *copy;
	uint32_t at;
	int r;

	if (!n || n > UIO_MAXIOV) {
		f->failed = f->failed ? f->failed : -EOPNOTSUPP;
		return 0;
	}
	copy = calloc(n, sizeof(*copy));
	r = copy ? kernel_read(f->k, vec, copy, n * sizeof(*copy)) : -ENOMEM;
	if (r < 0)
		f->failed = f->failed ? f->failed : r;
	at = r < 0 ? 0 : uring_put(f, copy, n * sizeof(*copy));
	free(copy);
	return at;
}

/* The vector of a struct iov_iter of which nothing has been used. */
static bool take_vector(struct flying *f, uint64_t iter, uint32_t *ret_at, uint32_t *ret_n)
{
	uint8_t type = (uint8_t)uring_get(f, iter, "iov_iter", "iter_type", 1);
	uint64_t n = uring_get(f, iter, "iov_iter", "nr_segs", 8);
	struct iovec one = {.iov_len = uring_get(f, iter, "iov_iter", "count", 8)};

	if (uring_get(f, iter, "iov_iter", "iov_offset", 8))
		return false;
	if (type == ITER_UBUF) {
		uint64_t at = uring_get(f, iter, "iov_iter", "ubuf", 8);

		one.iov_base = (void *)(uintptr_t)at;
		*ret_at = uring_put(f, &one, sizeof(one));
		*ret_n = 1;
		return true;
	}
	if (type != ITER_IOVEC)
		return false;
	*ret_at = put_vector(f, uring_get(f, iter, "iov_iter", "__iov", 8), n);
	*ret_n = (uint32_t)n;
	return true;
}

static uint64_t part(struct flying *f, uint64_t at, const char *type, const char *name)
{
	int offset = kernel_offset(f->k, type, name);

	if (offset < 0 && !f->failed)
		f->failed = offset;
	return at + (uint64_t)(offset < 0 ? 0 : offset);
}

/* ---- kinds ---- */

static bool take_poll(struct flying *f, struct io_uring_sqe *sqe)
{
	uint32_t events = (uint32_t)uring_of_kind(f, "io_poll", "events", 4);

	sqe->poll32_events = events & ~(POLL_ONESHOT | POLL_EDGE | POLL_ALWAYS);
	if (!(events & POLL_ONESHOT))
		sqe->len = IORING_POLL_ADD_MULTI;
	if (!(events & POLL_EDGE))
		sqe->len |= IORING_POLL_ADD_LEVEL;
	return !(sqe->poll32_events & POLL_EXCLUSIVE);
}

static bool take_rw(struct flying *f, struct io_uring_sqe *sqe)
{
	uint64_t data = uring_of_request(f, "async_data", 8);
	uint32_t at, n;

	sqe->off = uring_of_kind(f, "io_rw", "kiocb.ki_pos", 8);
	sqe->addr = uring_of_kind(f, "io_rw", "addr", 8);
	sqe->len = (uint32_t)uring_of_kind(f, "io_rw", "len", 4);
	sqe->rw_flags = (int)uring_of_kind(f, "io_rw", "flags", 4);
	if (!data || uring_get(f, data, "io_async_rw", "bytes_done", 8))
		return false;
	if (sqe->flags & IOSQE_BUFFER_SELECT) {
		sqe->addr = 0;
		sqe->buf_group = (uint16_t)uring_get(f, data, "io_async_rw", "buf_group", 4);
	}
	if (sqe->opcode == IORING_OP_READ_FIXED || sqe->opcode == IORING_OP_WRITE_FIXED)
		sqe->buf_index = (uint16_t)uring_of_request(f, "buf_index", 2);
	if (sqe->opcode != IORING_OP_READV && sqe->opcode != IORING_OP_WRITEV)
		return true;
	if (!take_vector(f, part(f, data, "io_async_rw", "iter"), &at, &n))
		return false;
	sqe->addr = at;
	sqe->len = n;
	f->to->sqe_pointers = URING_POINTER_ADDR;
	return true;
}

static bool take_recv(struct flying *f, struct io_uring_sqe *sqe)
{
	uint32_t flags = (uint32_t)uring_of_kind(f, "io_sr_msg", "flags", 2);

	bool chooses = sqe->flags & IOSQE_BUFFER_SELECT, again = flags & RECV_MULTISHOT;

	sqe->addr = chooses ? 0 : uring_of_kind(f, "io_sr_msg", "buf", 8);
	sqe->len = (uint32_t)uring_of_kind(f, "io_sr_msg", again ? "mshot_len" : "len", 4);
	sqe->msg_flags = (uint32_t)uring_of_kind(f, "io_sr_msg", "msg_flags", 4);
	sqe->ioprio = flags & RECV_FLAGS;
	if (chooses)
		sqe->buf_group = (uint16_t)uring_of_kind(f, "io_sr_msg", "buf_group", 2);
	/* what else an application can ask for changes what comes of it */
	return !(flags & RECV_OTHERS) && !uring_of_kind(f, "io_sr_msg", "done_io", 4) &&
	       (!again || (chooses && !uring_of_kind(f, "io_sr_msg", "mshot_total_len", 4)));
}

/* As in sendmsg(2); the kernel reads no further. */
struct header {
	uint64_t name;
	uint32_t name_len, unused;
	uint64_t vec, n, control, control_len;
};

static uint32_t put_header(struct flying *f, const struct header *h, bool own_name)
{
	uint32_t at = uring_put(f, h, sizeof(*h));

	put_pointer(f, at + offsetof(struct header, vec));
	if (own_name)
		put_pointer(f, at + offsetof(struct header, name));
	return at;
}

/* With buffers to choose from, the vector has nothing but a length, or there is none. */
static bool put_places(struct flying *f, struct header *h, uint64_t msg, bool chooses)
{
	struct iovec length = {.iov_len = (uint32_t)uring_of_kind(f, "io_sr_msg", "len", 4)};
	uint32_t at = 0, n = 0;

	if (chooses) {
		n = length.iov_len ? 1 : 0;
		at = uring_put(f, &length, sizeof(length));
	} else if (!take_vector(f, part(f, msg, "msghdr", "msg_iter"), &at, &n)) {
		return false;
	}
	h->vec = at;
	h->n = n;
	return true;
}

/* The length of the name is looked at when there is one: it stays what the application has there.
 */
static void patch_header(struct flying *f, uint64_t address, uint32_t at)
{
	const uint32_t after = offsetof(struct header, vec);

	uring_put_patch(f, address, at, sizeof(uint64_t));
	uring_put_patch(f, address + after, at + after, sizeof(struct header) - after);
}

/*
 * What is received is reported in the header of the application, at its address: the one that it
 * asked with stands there only while it is asked for again. Where a request goes on and on, nothing
 * is.
 */
static bool take_recvmsg(struct flying *f, struct io_uring_sqe *sqe)
{
	uint64_t data = uring_of_request(f, "async_data", 8);
	uint64_t msg = part(f, data, "io_async_msghdr", "msg");
	uint32_t flags = (uint32_t)uring_of_kind(f, "io_sr_msg", "flags", 2), at;
	bool again = flags & RECV_MULTISHOT;
	struct header h = {.name = uring_get(f, data, "io_async_msghdr", "uaddr", 8),
			   .control = uring_get(f, msg, "msghdr", "msg_control_user", 8),
			   .control_len = uring_get(f, msg, "msghdr", "msg_controllen", 8)};

	if (!data || (flags & ~(IORING_RECVSEND_POLL_FIRST | RECV_MULTISHOT)) ||
	    uring_of_kind(f, "io_sr_msg", "done_io", 4) ||
	    (again && !(sqe->flags & IOSQE_BUFFER_SELECT)))
		return false;
	h.name_len = h.name ? sizeof(struct sockaddr_storage) : 0;
	if (again) {
		h.name_len = (uint32_t)uring_get(f, data, "io_async_msghdr", "namelen", 4);
		h.control_len = uring_get(f, data, "io_async_msghdr", "controllen", 8);
	}
	if (!put_places(f, &h, msg, sqe->flags & IOSQE_BUFFER_SELECT))
		return false;
	at = put_header(f, &h, false);
	sqe->addr = again ? at : uring_of_kind(f, "io_sr_msg", "umsg", 8);
	sqe->len = 1;
	sqe->msg_flags = (uint32_t)uring_of_kind(f, "io_sr_msg", "msg_flags", 4);
	sqe->ioprio = (uint16_t)flags;
	if (sqe->flags & IOSQE_BUFFER_SELECT)
		sqe->buf_group = (uint16_t)uring_of_kind(f, "io_sr_msg", "buf_group", 2);
	if (again)
		f->to->sqe_pointers = URING_POINTER_ADDR;
	else
		patch_header(f, sqe->addr, at);
	return true;
}

/* Returns its length; 0: there is none. */
static uint32_t put_name(struct flying *f, uint64_t msg, uint32_t *ret_at)
{
	uint8_t name[sizeof(struct sockaddr_storage)];
	uint64_t at = uring_get(f, msg, "msghdr", "msg_name", 8);
	uint32_t len = (uint32_t)uring_get(f, msg, "msghdr", "msg_namelen", 4);
	int r;

	*ret_at = 0;
	if (!at || !len || f->failed)
		return 0;
	r = len <= sizeof(name) ? kernel_read(f->k, at, name, len) : -EOPNOTSUPP;
	if (r < 0)
		f->failed = r;
	else
		*ret_at = uring_put(f, name, len);
	return len;
}

static bool send_flags_fit(uint8_t opcode, uint32_t flags)
{
	switch (opcode) {
	case IORING_OP_SEND_ZC:
		return !(flags & ~SEND_ZC_FLAGS);
	case IORING_OP_SENDMSG_ZC:
		return !(flags & ~(SEND_ZC_FLAGS & ~SEND_FIXED));
	default:
		return !(flags & ~IORING_RECVSEND_POLL_FIRST);
	}
}

static bool take_send(struct flying *f, struct io_uring_sqe *sqe)
{
	uint64_t data = uring_of_request(f, "async_data", 8);
	uint64_t msg = part(f, data, "io_async_msghdr", "msg");
	uint32_t flags = (uint32_t)uring_of_kind(f, "io_sr_msg", "flags", 2), at, len;
	struct header h = {};

	sqe->msg_flags = (uint32_t)uring_of_kind(f, "io_sr_msg", "msg_flags", 4);
	sqe->ioprio = (uint16_t)flags;
	if (!data || !send_flags_fit(sqe->opcode, flags) ||
	    uring_of_kind(f, "io_sr_msg", "done_io", 4))
		return false;
	if (flags & SEND_FIXED)
		sqe->buf_index = (uint16_t)uring_of_request(f, "buf_index", 2);
	len = put_name(f, msg, &at);
	if (sqe->opcode == IORING_OP_SEND || sqe->opcode == IORING_OP_SEND_ZC) {
		sqe->addr = uring_of_kind(f, "io_sr_msg", "buf", 8);
		sqe->len = (uint32_t)uring_of_kind(f, "io_sr_msg", "len", 4);
		sqe->addr2 = at;
		sqe->addr_len = (uint16_t)len;
		f->to->sqe_pointers = len ? URING_POINTER_ADDR2 : 0;
		return true;
	}
	h.name = at;
	h.name_len = len;
	h.control = uring_of_kind(f, "io_sr_msg", "msg_control", 8);
	h.control_len = uring_get(f, msg, "msghdr", "msg_controllen", 8);
	if (!put_places(f, &h, msg, false))
		return false;
	sqe->addr = put_header(f, &h, len);
	sqe->len = 1;
	f->to->sqe_pointers = URING_POINTER_ADDR;
	return true;
}

/*
 * The address has been copied, and is all that has been: no structure describes it (6.18), so it
 * must look like one.
 * A socket that is about to be connected is saved as one that is not (net/inet_tcp.c), so that
 * the request connects it, and not somebody before it: io_connect() takes EALREADY for an answer.
 */
static bool take_connect(struct flying *f, struct io_uring_sqe *sqe)
{
	uint64_t data = uring_of_request(f, "async_data", 8);
	uint32_t len = (uint32_t)uring_of_kind(f, "io_connect", "addr_len", 4);
	uint8_t name[sizeof(struct sockaddr_storage)] = {};
	sa_family_t family;
	int r;

	if (!data || !len || len > sizeof(name))
		return false;
	r = kernel_read(f->k, data, name, len);
	f->failed = f->failed ? f->failed : r;
	sqe->addr = uring_put(f, name, len);
	sqe->addr2 = len;
	f->to->sqe_pointers = URING_POINTER_ADDR;
	memcpy(&family, name, sizeof(family));
	return (family == AF_INET && len >= sizeof(struct sockaddr_in)) ||
	       (family == AF_INET6 && len >= SIN6_LEN_RFC2133);
}

static bool take_accept(struct flying *f, struct io_uring_sqe *sqe)
{
	sqe->addr = uring_of_kind(f, "io_accept", "addr", 8);
	sqe->addr2 = uring_of_kind(f, "io_accept", "addr_len", 8);
	sqe->accept_flags = (uint32_t)uring_of_kind(f, "io_accept", "flags", 4);
	sqe->ioprio = (uint16_t)uring_of_kind(f, "io_accept", "iou_flags", 4);
	sqe->file_index = (uint32_t)uring_of_kind(f, "io_accept", "file_slot", 4);
	f->to->nofile = uring_of_kind(f, "io_accept", "nofile", 8);
	return true;
}

/* Nothing to do, and not asked to fail. */
static bool take_nop(struct flying *f, struct io_uring_sqe *sqe)
{
	return !uring_of_kind(f, "io_nop", "flags", 4);
}

/* ---- what runs at once when its turn comes ---- */

static bool take_sync(struct flying *f, struct io_uring_sqe *sqe)
{
	sqe->off = uring_of_kind(f, "io_sync", "off", 8);
	sqe->len = (uint32_t)uring_of_kind(f, "io_sync", "len", 8);
	sqe->fsync_flags = (uint32_t)uring_of_kind(f, "io_sync", "flags", 4);
	return !f->issued;
}

static bool take_close(struct flying *f, struct io_uring_sqe *sqe)
{
	sqe->fd = (int32_t)uring_of_kind(f, "io_close", "fd", 4);
	sqe->file_index = (uint32_t)uring_of_kind(f, "io_close", "file_slot", 4);
	return !f->issued;
}

static bool take_shutdown(struct flying *f, struct io_uring_sqe *sqe)
{
	sqe->len = (uint32_t)uring_of_kind(f, "io_shutdown", "how", 4);
	return !f->issued;
}

/* ---- all of them ---- */

static const struct kind {
	uint8_t opcode;
	uint8_t flags; /* IOSQE_* of its own */
	bool no_file;
	bool (*take)(struct flying *f, struct io_uring_sqe *sqe);
} kinds[] = {
	{IORING_OP_NOP, 0, true, take_nop}, /* in a chain, or held back, as the next three */
	{IORING_OP_FSYNC, 0, false, take_sync},
	{IORING_OP_CLOSE, 0, true, take_close},
	{IORING_OP_SHUTDOWN, 0, false, take_shutdown},
	{IORING_OP_POLL_ADD, 0, false, take_poll},
	{IORING_OP_READ, IOSQE_BUFFER_SELECT, false, take_rw},
	{IORING_OP_READV, 0, false, take_rw},
	{IORING_OP_READ_FIXED, 0, false, take_rw},
	{URING_OP_READ_MULTISHOT, IOSQE_BUFFER_SELECT, false, take_rw},
	{IORING_OP_WRITE, 0, false, take_rw},
	{IORING_OP_WRITEV, 0, false, take_rw},
	{IORING_OP_WRITE_FIXED, 0, false, take_rw},
	{IORING_OP_RECV, IOSQE_BUFFER_SELECT, false, take_recv},
	{IORING_OP_RECVMSG, IOSQE_BUFFER_SELECT, false, take_recvmsg},
	{IORING_OP_SEND, 0, false, take_send},
	{IORING_OP_SENDMSG, 0, false, take_send},
	{IORING_OP_SEND_ZC, 0, false, take_send},
	{IORING_OP_SENDMSG_ZC, 0, false, take_send},
	{IORING_OP_CONNECT, 0, false, take_connect},
	{IORING_OP_ACCEPT, 0, false, take_accept},
	{URING_OP_EPOLL_WAIT, 0, false, uring_take_epoll},
	{URING_OP_WAITID, 0, true, uring_take_waitid},
	{URING_OP_FUTEX_WAIT, 0, true, uring_take_futex},
	{URING_OP_FUTEX_WAITV, 0, true, uring_take_futexes},
	{IORING_OP_TIMEOUT, 0, true, uring_take_timeout},
	{IORING_OP_LINK_TIMEOUT, 0, true, uring_take_timeout},
};

static const struct kind *find_kind(uint8_t opcode)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].opcode == opcode)
			return &kinds[i];
	return NULL;
}

bool uring_kind_fits(uint8_t opcode, uint8_t flags)
{
	const uint8_t common = IOSQE_FIXED_FILE | IOSQE_ASYNC | IOSQE_CQE_SKIP_SUCCESS |
			       IOSQE_IO_LINK | IOSQE_IO_HARDLINK | IOSQE_IO_DRAIN;
	const struct kind *k = find_kind(opcode);

	return k && !(flags & ~(common | k->flags));
}

bool uring_kind_has_file(uint8_t opcode)
{
	const struct kind *k = find_kind(opcode);

	return k && !k->no_file;
}

bool uring_take(struct flying *f)
{
	const struct kind *k = find_kind(f->to->sqe.opcode);

	return k && uring_kind_fits(k->opcode, f->to->sqe.flags) && k->take(f, &f->to->sqe);
}
