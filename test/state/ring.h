/* SPDX-License-Identifier: Apache-2.0 */
/* A ring of io_uring without a library, for the tests of it. */
#ifndef TEST_RING_H
#define TEST_RING_H

#include "harness.h"

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NO_SQARRAY (1U << 16)

struct ring {
	int fd;
	struct io_uring_params p;
	char *rings, *sqes;
	size_t rings_size, sqes_size;
	uint32_t tail, head; /* as liburing keeps them: never read back */
};

static inline uint32_t *word(const struct ring *r, uint32_t offset)
{
	return (uint32_t *)(void *)(r->rings + offset);
}

static inline size_t sqe_size(const struct ring *r)
{
	return r->p.flags & IORING_SETUP_SQE128 ? 128 : 64;
}

static inline size_t cqe_size(const struct ring *r)
{
	return r->p.flags & IORING_SETUP_CQE32 ? 32 : 16;
}

static inline void ring_make(struct ring *r, unsigned int entries, unsigned int flags)
{
	const struct io_uring_params asked = {.flags = flags,
					      .sq_thread_cpu = r->p.sq_thread_cpu,
					      .sq_thread_idle = r->p.sq_thread_idle,
					      .wq_fd = r->p.wq_fd};

	*r = (struct ring){.p = asked};
	r->fd = (int)syscall(SYS_io_uring_setup, entries, &r->p);
	if (r->fd < 0 && (errno == ENOSYS || errno == EPERM || errno == EINVAL))
		test_skip("no io_uring here, or not this one (flags %#x)", flags);
	CHECK(r->fd >= 0);
	r->rings_size = r->p.cq_off.cqes + r->p.cq_entries * cqe_size(r);
	if (!(flags & NO_SQARRAY) && r->p.sq_off.array + r->p.sq_entries * 4 > r->rings_size)
		r->rings_size = r->p.sq_off.array + r->p.sq_entries * 4;
	r->sqes_size = r->p.sq_entries * sqe_size(r);
	r->rings = mmap(NULL, r->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			r->fd, IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, r->sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
		       IORING_OFF_SQES);
	CHECK(r->rings != MAP_FAILED && r->sqes != MAP_FAILED);
	for (uint32_t i = 0; !(flags & NO_SQARRAY) && i < r->p.sq_entries; i++)
		word(r, r->p.sq_off.array)[i] = i;
}

static inline struct io_uring_sqe *ring_sqe(struct ring *r, uint8_t op, uint64_t data)
{
	struct io_uring_sqe *sqe =
		(void *)(r->sqes + (r->tail & (r->p.sq_entries - 1)) * sqe_size(r));

	CHECK(r->tail - *word(r, r->p.sq_off.head) < r->p.sq_entries);
	memset(sqe, 0, sqe_size(r));
	sqe->opcode = op;
	sqe->user_data = data;
	sqe->fd = -1;
	r->tail++;
	__atomic_store_n(word(r, r->p.sq_off.tail), r->tail, __ATOMIC_RELEASE);
	return sqe;
}

static inline void ring_enter(struct ring *r, unsigned int submit, unsigned int wait)
{
	long n;

	do
		n = syscall(SYS_io_uring_enter, r->fd, submit, wait, IORING_ENTER_GETEVENTS, NULL,
			    0);
	while (n < 0 && errno == EINTR);
	CHECK_EQUAL(n, submit);
}

/* The next completion, NULL if there is none. */
static inline const struct io_uring_cqe *ring_peek(const struct ring *r)
{
	if (__atomic_load_n(word(r, r->p.cq_off.tail), __ATOMIC_ACQUIRE) == r->head)
		return NULL;
	return (void *)(r->rings + r->p.cq_off.cqes +
			(r->head & (r->p.cq_entries - 1)) * cqe_size(r));
}

static inline void ring_taken(struct ring *r)
{
	r->head++;
	__atomic_store_n(word(r, r->p.cq_off.head), r->head, __ATOMIC_RELEASE);
}

/* It is this one. */
static inline void ring_take(struct ring *r, uint64_t data, int32_t result)
{
	const struct io_uring_cqe *cqe = ring_peek(r);

	CHECKF(cqe, "no completion where %llu should be", (unsigned long long)data);
	CHECK_EQUAL(cqe->user_data, data);
	CHECK_EQUAL(cqe->res, result);
	ring_taken(r);
}

static inline void ring_nops(struct ring *r, unsigned int n, uint8_t flags)
{
	while (n--) {
		ring_sqe(r, IORING_OP_NOP, 1000 + n)->flags = flags;
		ring_enter(r, 1, flags & IOSQE_CQE_SKIP_SUCCESS ? 0 : 1);
		if (!(flags & IOSQE_CQE_SKIP_SUCCESS))
			ring_take(r, 1000 + n, 0);
	}
}

static inline void ring_empty(const struct ring *r)
{
	CHECK_EQUAL(*word(r, r->p.cq_off.tail), r->head);
	CHECK_EQUAL(*word(r, r->p.sq_off.head), r->tail);
}

static inline void ring_register(const struct ring *r, unsigned int op, const void *arg,
				 unsigned int n)
{
	long result = syscall(SYS_io_uring_register, r->fd, op, arg, n);

	if (result < 0 && errno == EOPNOTSUPP && op == IORING_REGISTER_BUFFERS)
		test_skip("this kernel registers no buffers in memory of a file");
	CHECKF(result >= 0, "register %u: %s", op, strerror(errno));
}

#endif
