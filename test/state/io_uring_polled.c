/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings whose requests are submitted by a thread of the kernel (IORING_SETUP_SQPOLL), with some in
 * flight, some that it has not seen yet, and some whose completions wait; one that polls for
 * completions (IORING_SETUP_IOPOLL), and one for which interfaces are polled (NAPI).
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <stdio.h>
#include <stdlib.h>
#include <sched.h>

static struct ring polled, bound, completed, busy;
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

int main(void)
{
	struct napi other = {.timeout_us = 13};
	bool napi;

	test_init();
	napi = napi_set_up();
	polled_set_up();
	make_polled(&bound, 4, IORING_SETUP_SQ_AFF | IORING_SETUP_SINGLE_ISSUER,
		    (uint32_t)sched_getcpu());
	nops(&bound, 6);
	completed.p.wq_fd = (uint32_t)polled.fd;
	ring_make(&completed, 4, IORING_SETUP_IOPOLL | IORING_SETUP_ATTACH_WQ);
	ring_nops(&completed, 9, 0);
	test_wait();
	CHECK(told(polled.fd, "SqThread") > 0 && told(bound.fd, "SqThread") > 0);
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
	polled_check();
	nops(&bound, 6);
	ring_empty(&bound);
	ring_nops(&completed, 9, 0);
	ring_empty(&completed);
	test_pass();
}
