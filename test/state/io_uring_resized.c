/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of io_uring that was given another size (IORING_REGISTER_RESIZE_RINGS), with completions
 * that wait and a request in flight from before.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#define RESIZE_RINGS 33

static struct ring ring;
static int ends[2];
static char into[16];

static void resize(uint32_t sq_entries, uint32_t cq_entries)
{
	struct io_uring_params p = {
		.sq_entries = sq_entries, .cq_entries = cq_entries, .flags = IORING_SETUP_CQSIZE};

	if (syscall(SYS_io_uring_register, ring.fd, RESIZE_RINGS, &p, 1) < 0)
		test_skip("no IORING_REGISTER_RESIZE_RINGS");
	CHECK(!munmap(ring.rings, ring.rings_size) && !munmap(ring.sqes, ring.sqes_size));
	p.flags = ring.p.flags;
	ring.p = p;
	ring.rings_size = p.cq_off.cqes + p.cq_entries * cqe_size(&ring);
	ring.sqes_size = p.sq_entries * sqe_size(&ring);
	ring.rings = mmap(NULL, ring.rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			  ring.fd, IORING_OFF_SQ_RING);
	ring.sqes = mmap(NULL, ring.sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd,
			 IORING_OFF_SQES);
	CHECK(ring.rings != MAP_FAILED && ring.sqes != MAP_FAILED);
}

static void set_up(void)
{
	struct io_uring_sqe *sqe;

	ring_make(&ring, 4, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | NO_SQARRAY);
	ring_nops(&ring, 7, 0);
	CHECK(!pipe(ends));
	sqe = ring_sqe(&ring, IORING_OP_READ, 50);
	sqe->fd = ends[0];
	sqe->addr = (uintptr_t)into;
	sqe->len = sizeof(into);
	ring_enter(&ring, 1, 0);
	for (uint64_t i = 0; i < 3; i++)
		ring_sqe(&ring, IORING_OP_NOP, 60 + i);
	ring_enter(&ring, 3, 3);
	resize(32, 128);
	ring_take(&ring, 60, 0);
}

int main(void)
{
	test_init();
	set_up();
	test_wait();
	if (test_break(1))
		ring_take(&ring, 61, 0);
	if (test_break(2))
		ring.tail++;
	ring_take(&ring, 61, 0);
	ring_take(&ring, 62, 0);
	for (uint64_t i = 0; i < 30; i++)
		ring_sqe(&ring, IORING_OP_NOP, i);
	ring_enter(&ring, 30, 30);
	for (uint64_t i = 0; i < 30; i++)
		ring_take(&ring, i, 0);
	CHECK_EQUAL(write(ends[1], "resized", 7), 7);
	ring_enter(&ring, 0, 1);
	ring_take(&ring, 50, 7);
	CHECK(!memcmp(into, "resized", 7));
	ring_empty(&ring);
	test_pass();
}
