/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings whose requests are submitted by a thread of the kernel (IORING_SETUP_SQPOLL), with some in
 * flight, some that it has not seen yet, and some whose completions wait; several with one thread;
 * one that polls for completions (IORING_SETUP_IOPOLL), and one for which interfaces are polled
 * (NAPI).
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <stdio.h>
#include <stdlib.h>
#include <sched.h>

static struct ring polled, bound, completed, busy, second_ring, third_ring;
static char first[16], second[16], third[16];
static int plain[2], slot[2], linked[2];

static void make_polled(struct ring *r, unsigned int entries, unsigned int flags, uint32_t cpu)
{
	r->p.sq_thread_idle = 8;
	r->p.sq_thread_cpu = cpu;
	ring_make(r, entries, flags | IORING_SETUP_SQPOLL);
}

/* Waits for n completions; whatever was put in is taken. */
static void wait_for(const struct ring *r, unsigned int n)
{
	long got;

	do
		got = syscall(SYS_io_uring_enter, r->fd, 0, n,
			      IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP, NULL, 0);
	while (got < 0 && errno == EINTR);
	CHECK_EQUAL(got, 0);
}

static void wait_taken(const struct ring *r)
{
	while (__atomic_load_n(word(r, r->p.sq_off.head), __ATOMIC_ACQUIRE) != r->tail) {
		wait_for(r, 0);
		test_sleep(0.001);
	}
}

static void wait_asleep(const struct ring *r)
{
	while (!(__atomic_load_n(word(r, r->p.sq_off.flags), __ATOMIC_ACQUIRE) &
		 IORING_SQ_NEED_WAKEUP))
		test_sleep(0.002);
}

static void nops(struct ring *r, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		ring_sqe(r, IORING_OP_NOP, 500 + i);
		wait_for(r, 1);
		ring_take(r, 500 + i, 0);
		wait_taken(r);
	}
}

static struct io_uring_sqe *ask(uint8_t op, uint64_t data, int fd, void *at, uint32_t len)
{
	struct ring *r = &polled;
	struct io_uring_sqe *sqe =
		(void *)(r->sqes + (r->tail & (r->p.sq_entries - 1)) * sizeof(*sqe));

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = op;
	sqe->user_data = data;
	sqe->fd = fd;
	sqe->addr = (uintptr_t)at;
	sqe->len = len;
	return sqe;
}

static void put(unsigned int n)
{
	polled.tail += n;
	__atomic_store_n(word(&polled, polled.p.sq_off.tail), polled.tail, __ATOMIC_RELEASE);
	wait_taken(&polled);
}

static void polled_set_up(void)
{
	make_polled(&polled, 8, 0, 0);
	nops(&polled, 21);
	CHECK(!pipe(plain) && !pipe(slot) && !pipe(linked));
	ring_register(&polled, IORING_REGISTER_FILES, slot, 1);
	ask(IORING_OP_READ, 1, plain[0], first, 16);
	put(1);
	ask(IORING_OP_READ, 2, 0, second, 16)->flags = IOSQE_FIXED_FILE;
	put(1);
	ask(IORING_OP_READ, 3, linked[0], third, 3)->flags = IOSQE_IO_LINK;
	polled.tail++;
	ask(IORING_OP_NOP, 4, -1, NULL, 0);
	polled.tail--;
	put(2);
	/* one that has ended, and one that nobody has seen yet */
	ring_sqe(&polled, IORING_OP_NOP, 5);
	wait_for(&polled, 1);
	wait_asleep(&polled);
	ring_sqe(&polled, IORING_OP_NOP, 6);
}

/* One thread for three rings, of which one is idle and one has a request in flight. */
static int shared_ends[2];
static char shared_into[16];

static void shared_set_up(void)
{
	struct io_uring_sqe *sqe;

	second_ring.p.wq_fd = third_ring.p.wq_fd = (uint32_t)polled.fd;
	make_polled(&second_ring, 4, IORING_SETUP_ATTACH_WQ, 0);
	make_polled(&third_ring, 16, IORING_SETUP_ATTACH_WQ, 0);
	nops(&second_ring, 5);
	CHECK(!pipe(shared_ends));
	sqe = ring_sqe(&third_ring, IORING_OP_READ, 70);
	sqe->fd = shared_ends[0];
	sqe->addr = (uintptr_t)shared_into;
	sqe->len = sizeof(shared_into);
	wait_taken(&third_ring);
}

static void shared_check(void)
{
	nops(&second_ring, 7);
	ring_empty(&second_ring);
	CHECK_EQUAL(write(shared_ends[1], "shared", 6), 6);
	wait_for(&third_ring, 1);
	ring_take(&third_ring, 70, 6);
	CHECK(!memcmp(shared_into, "shared", 6));
	nops(&third_ring, 3);
	ring_empty(&third_ring);
}

static void polled_check(void)
{
	wait_for(&polled, 2);
	ring_take(&polled, 5, 0);
	ring_take(&polled, 6, 0);
	CHECK_EQUAL(write(plain[1], "plain", 5), 5);
	wait_for(&polled, 1);
	ring_take(&polled, 1, 5);
	CHECK(!memcmp(first, "plain", 5));
	CHECK_EQUAL(write(slot[1], "slot", 4), 4);
	wait_for(&polled, 1);
	ring_take(&polled, 2, 4);
	CHECK(!memcmp(second, "slot", 4));
	CHECK_EQUAL(write(linked[1], "lnk", 3), 3);
	wait_for(&polled, 2);
	ring_take(&polled, 3, 3);
	ring_take(&polled, 4, 0);
	nops(&polled, 30);
	ring_empty(&polled);
	/* the thread goes to sleep after the same time */
	wait_asleep(&polled);
}

/* Busy polling of interfaces: what is registered is told when it is taken back. */
struct napi {
	uint32_t timeout_us;
	uint8_t prefer, unused[3];
	uint32_t tracking, reserved;
};

static bool napi_set_up(void)
{
	struct napi napi = {.timeout_us = 12, .prefer = 1};

	ring_make(&busy, 4, 0);
	return syscall(SYS_io_uring_register, busy.fd, 27 /* IORING_REGISTER_NAPI */, &napi, 1) >=
	       0;
}

static void napi_check(void)
{
	struct napi napi = {};

	ring_register(&busy, 28 /* IORING_UNREGISTER_NAPI */, &napi, 1);
	CHECK_EQUAL(napi.timeout_us, 12);
	CHECK_EQUAL(napi.prefer, 1);
}

/* What fdinfo says of the thread. */
static long told(int fd, const char *name)
{
	char path[64], value[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	test_line(path, name, value, sizeof(value));
	return strtol(value, NULL, 10);
}

#define HYBRID_IOPOLL (1u << 17) /* IORING_SETUP_HYBRID_IOPOLL, 6.13 */
#define CQE_MIXED     (1u << 18) /* IORING_SETUP_CQE_MIXED, 6.18 */
#define NOP_CQE32     (1u << 5)	 /* IORING_NOP_CQE32 */

static struct ring hybrid_ring, mixed_ring;

static bool make_if_known(struct ring *r, unsigned int flags)
{
	struct io_uring_params p = {.flags = flags};
	int fd = (int)syscall(SYS_io_uring_setup, 4, &p);

	if (fd < 0)
		return false;
	CHECK(!close(fd));
	ring_make(r, 4, flags);
	ring_nops(r, 7, 0);
	return true;
}

/* A completion of twice the size takes two places. */
static void large_nop(struct ring *r)
{
	const struct io_uring_cqe *cqe;

	ring_sqe(r, IORING_OP_NOP, 40)->rw_flags = NOP_CQE32;
	ring_enter(r, 1, 1);
	cqe = ring_peek(r);
	CHECK(cqe);
	if (cqe->flags & 1u << 5) { /* IORING_CQE_F_SKIP: to the beginning */
		ring_taken(r);
		cqe = ring_peek(r);
		CHECK(cqe);
	}
	CHECK_EQUAL(cqe->user_data, 40);
	CHECK(cqe->flags & 1u << 15); /* IORING_CQE_F_32 */
	ring_taken(r);
	ring_taken(r);
}

int main(void)
{
	struct napi other = {.timeout_us = 13};
	bool napi, hybrid, mixed;

	test_init();
	napi = napi_set_up();
	polled_set_up();
	shared_set_up();
	make_polled(&bound, 4, IORING_SETUP_SQ_AFF | IORING_SETUP_SINGLE_ISSUER,
		    (uint32_t)sched_getcpu());
	nops(&bound, 6);
	completed.p.wq_fd = (uint32_t)polled.fd;
	ring_make(&completed, 4, IORING_SETUP_IOPOLL | IORING_SETUP_ATTACH_WQ);
	ring_nops(&completed, 9, 0);
	hybrid = make_if_known(&hybrid_ring, IORING_SETUP_IOPOLL | HYBRID_IOPOLL);
	mixed = make_if_known(&mixed_ring, CQE_MIXED);
	if (mixed)
		large_nop(&mixed_ring);
	test_wait();
	CHECK(told(polled.fd, "SqThread") > 0 && told(bound.fd, "SqThread") > 0);
	CHECK_EQUAL(told(second_ring.fd, "SqThread"), told(polled.fd, "SqThread"));
	CHECK_EQUAL(told(third_ring.fd, "SqThread"), told(polled.fd, "SqThread"));
	CHECK(told(bound.fd, "SqThread") != told(polled.fd, "SqThread"));
	if (test_break(1))
		CHECK_EQUAL(write(plain[1], "broken", 6), 6);
	if (test_break(2))
		ring_sqe(&polled, IORING_OP_NOP, 7);
	if (test_break(3))
		nops(&bound, 1), bound.tail--;
	if (test_break(4))
		ring_register(&busy, 27, &other, 1);
	if (napi)
		napi_check();
	if (hybrid)
		ring_nops(&hybrid_ring, 9, 0);
	if (mixed)
		large_nop(&mixed_ring);
	if (mixed)
		ring_nops(&mixed_ring, 3, 0);
	polled_check();
	shared_check();
	nops(&bound, 6);
	ring_empty(&bound);
	ring_nops(&completed, 9, 0);
	ring_empty(&completed);
	test_pass();
}
