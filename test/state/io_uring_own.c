/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings of io_uring in memory of the application (IORING_SETUP_NO_MMAP): private and shared, with
 * completions and requests that wait in them, requests in flight, buffers to choose from, and other
 * data beside them in the same pages.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <signal.h>

#define NO_MMAP (1U << 14)

static struct ring plain, deferred, shared, large;
static int ends[2], more[2], given[2];
static char into[16], second[16], buffers[4][64];
static struct io_uring_buf_ring *provided;
static char *beside;

/* The last member of both (user_addr, 6.5). */
static void set_address(void *offsets, size_t size, const void *at)
{
	uint64_t address = (uintptr_t)at;

	memcpy((char *)offsets + size - sizeof(address), &address, sizeof(address));
}

/* Rings at the beginning of that memory, requests `sqes` bytes behind it. */
static void make_in(struct ring *r, char *memory, size_t sqes, unsigned int entries,
		    unsigned int flags)
{
	*r = (struct ring){.rings = memory, .sqes = memory + sqes};
	r->p.flags = flags | NO_MMAP;
	set_address(&r->p.cq_off, sizeof(r->p.cq_off), r->rings);
	set_address(&r->p.sq_off, sizeof(r->p.sq_off), r->sqes);
	r->fd = (int)syscall(SYS_io_uring_setup, entries, &r->p);
	if (r->fd < 0 && (errno == ENOSYS || errno == EPERM || errno == EINVAL))
		test_skip("no io_uring here, or not in memory of the application");
	CHECK(r->fd >= 0);
	for (uint32_t i = 0; !(flags & NO_SQARRAY) && i < r->p.sq_entries; i++)
		word(r, r->p.sq_off.array)[i] = i;
}

static char *memory(size_t size, int flags)
{
	char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	return at;
}

static void read_into(struct ring *r, uint64_t data, int fd, void *to, uint32_t size)
{
	struct io_uring_sqe *sqe = ring_sqe(r, IORING_OP_READ, data);

	sqe->fd = fd;
	sqe->addr = (uintptr_t)to;
	sqe->len = size;
	ring_enter(r, 1, 0);
}

static void expect(struct ring *r, uint64_t data, int32_t result)
{
	while (!ring_peek(r))
		ring_enter(r, 0, 1);
	ring_take(r, data, result);
}

static void plain_set_up(void)
{
	char *at = memory(3 * 4096, MAP_PRIVATE);

	make_in(&plain, at, 8192, 8, 0);
	beside = at + 1024;
	test_fill(beside, 8192 - 1024, 3);
	ring_nops(&plain, 13, 0);
	CHECK(!pipe(ends));
	read_into(&plain, 7, ends[0], into, sizeof(into));
	/* one that has ended, and one that nobody has seen yet */
	ring_sqe(&plain, IORING_OP_NOP, 8);
	ring_enter(&plain, 1, 1);
	ring_sqe(&plain, IORING_OP_NOP, 9);
}

static void plain_check(void)
{
	CHECK_FILLED(beside, 8192 - 1024, 3);
	CHECK_EQUAL(*word(&plain, plain.p.cq_off.head), plain.head);
	CHECK_EQUAL(*word(&plain, plain.p.sq_off.tail), plain.tail);
	ring_take(&plain, 8, 0);
	CHECK(!ring_peek(&plain));
	ring_enter(&plain, 1, 1);
	ring_take(&plain, 9, 0);
	CHECK_EQUAL(write(ends[1], "waited", 6), 6);
	expect(&plain, 7, 6);
	CHECK(!memcmp(into, "waited", 6));
	ring_nops(&plain, 20, 0);
	ring_empty(&plain);
}

static void choose(uint64_t data)
{
	struct io_uring_sqe *sqe = ring_sqe(&deferred, IORING_OP_READ, data);

	sqe->fd = given[0];
	sqe->len = sizeof(buffers[0]);
	sqe->flags = IOSQE_BUFFER_SELECT;
	CHECK_EQUAL(write(given[1], "some", 4), 4);
	ring_enter(&deferred, 1, 1);
	ring_take(&deferred, data, 4);
}

static void deferred_set_up(void)
{
	char *at = memory(4 * 4096, MAP_PRIVATE);
	struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)(at + 3 * 4096), .ring_entries = 4};

	make_in(&deferred, at, 8192, 4,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | NO_SQARRAY);
	provided = (void *)(at + 3 * 4096);
	ring_register(&deferred, IORING_REGISTER_PBUF_RING, &reg, 1);
	for (uint16_t i = 0; i < 4; i++)
		provided->bufs[i] = (struct io_uring_buf){
			.addr = (uintptr_t)buffers[i], .len = sizeof(buffers[i]), .bid = i};
	provided->tail = 4;
	CHECK(!pipe(given) && !pipe(more));
	ring_nops(&deferred, 5, IOSQE_CQE_SKIP_SUCCESS);
	choose(30);
	choose(31);
	read_into(&deferred, 40, more[0], second, sizeof(second));
}

static void deferred_check(void)
{
	choose(32);
	CHECK(!memcmp(buffers[2], "some", 4));
	CHECK_EQUAL(write(more[1], "second", 6), 6);
	expect(&deferred, 40, 6);
	CHECK(!memcmp(second, "second", 6));
	ring_nops(&deferred, 9, 0);
	ring_empty(&deferred);
}

/* A child sees them, too. */
static int look_at(void *at)
{
	test_hold();
	CHECK_EQUAL(*word(&shared, shared.p.cq_off.tail), 1500);
	CHECK_EQUAL(*(uint64_t *)at, 77);
	return 5;
}

static pid_t child;

static void others_set_up(void)
{
	char *at = memory(16 * 4096, MAP_SHARED);

	*(uint64_t *)(void *)(at + 8 * 4096) = 77;
	make_in(&shared, at, 4096, 4, IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER);
	ring_register(&shared, IORING_REGISTER_PERSONALITY, NULL, 0);
	ring_register(&shared, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	ring_nops(&shared, 1500, 0);
	child = test_fork(look_at, at + 8 * 4096);

	/* 64 KiB and 32 KiB, and completions that do not fit */
	make_in(&large, memory(64 * 4096, MAP_PRIVATE), 40 * 4096, 512, 0);
	ring_nops(&large, 3, 0);
	for (int i = 0; i < 3; i++) {
		for (uint64_t k = 0; k < 512; k++)
			ring_sqe(&large, IORING_OP_NOP, k);
		CHECK_EQUAL(syscall(SYS_io_uring_enter, large.fd, 512, 0, 0, NULL, 0), 512);
	}
}

static void others_check(void)
{
	test_reap(child, 5);
	ring_nops(&shared, 4, 0);
	ring_empty(&shared);
	for (uint64_t k = 0; k < 3 * 512; k++) {
		if (!ring_peek(&large))
			ring_enter(&large, 0, 1);
		ring_take(&large, k % 512, 0);
	}
	ring_nops(&large, 4, 0);
	ring_empty(&large);
}

int main(void)
{
	test_init();
	plain_set_up();
	deferred_set_up();
	others_set_up();
	test_wait();
	if (test_break(1))
		beside[100]++;
	if (test_break(2))
		ring_sqe(&deferred, IORING_OP_NOP, 5);
	if (test_break(3))
		ring_nops(&large, 1, IOSQE_CQE_SKIP_SUCCESS), large.tail--;
	plain_check();
	deferred_check();
	others_check();
	test_pass();
}
