/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings of buffers from which requests of an io_uring choose: one that has been used and filled up
 * again, one of several pages that nobody has used, one whose buffers are taken bit by bit, one in
 * memory of the kernel; a request that receives again and again and waits.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "ring.h"

#include <stdio.h>
#include <sys/socket.h>

#define ENTRIES	    8
#define SIZE	    64
#define PBUF_STATUS 26 /* IORING_REGISTER_PBUF_STATUS, 6.8 */
#define GROUPS	    4
#define IN_KERNEL   1 /* IOU_PBUF_RING_MMAP */
#define OF_GROUP(n) (0x80000000ll + ((n) << 16))
#define AROUND	    (4 << 20)

struct group {
	uint16_t id, entries;
	struct io_uring_buf_ring *ring;
	char (*buffers)[SIZE];
};

static struct ring ring;
static struct group groups[GROUPS];
static int pair[2], again[2];

static void provide(struct group *g, uint16_t id)
{
	uint16_t tail = g->ring->tail;
	struct io_uring_buf *buf = &g->ring->bufs[tail & (g->entries - 1)];

	buf->addr = (uintptr_t)g->buffers[id];
	buf->len = SIZE;
	buf->bid = id;
	__atomic_store_n(&g->ring->tail, tail + 1, __ATOMIC_RELEASE);
}

static bool make_group(struct group *g, uint16_t id, uint16_t entries, uint16_t flags)
{
	struct io_uring_buf_reg reg = {.ring_entries = entries, .bgid = id, .pad = flags};
	char *memory;

	*g = (struct group){.id = id, .entries = entries};
	/* Amid memory with contents. */
	memory = mmap(NULL, AROUND, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	test_fill(memory, AROUND, id);
	g->ring = memset(memory + AROUND / 2, 0, entries * 16ul);
	g->buffers = mmap(NULL, (size_t)entries * SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(g->buffers != MAP_FAILED);
	if (!(flags & IN_KERNEL))
		reg.ring_addr = (uintptr_t)g->ring;
	if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_PBUF_RING, &reg, 1) < 0)
		return false;
	if (flags & IN_KERNEL)
		g->ring = mmap(NULL, entries * 16ul, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd,
			       OF_GROUP(id));
	CHECK(g->ring != MAP_FAILED);
	for (uint16_t i = 0; i < entries; i++)
		provide(g, i);
	return true;
}

static uint32_t head_of(const struct group *g)
{
	struct {
		uint32_t group, head, unused[8];
	} status = {.group = g->id};

	ring_register(&ring, PBUF_STATUS, &status, 1);
	return status.head;
}

static bool tells_heads(uint16_t group)
{
	uint32_t status[10] = {group};

	return syscall(SYS_io_uring_register, ring.fd, PBUF_STATUS, status, 1) >= 0;
}

static void receive(int fd, const struct group *g, uint16_t flags, uint64_t data)
{
	struct io_uring_sqe *sqe = ring_sqe(&ring, IORING_OP_RECV, data);

	sqe->fd = fd;
	sqe->flags = IOSQE_BUFFER_SELECT;
	sqe->buf_group = g->id;
	sqe->ioprio = flags;
	ring_enter(&ring, 1, 0);
}

/* The next completion is of this request, and has put the text into that buffer. */
static void expect(const struct group *g, uint64_t data, uint16_t id, const char *text, size_t at)
{
	const struct io_uring_cqe *cqe;

	do
		ring_enter(&ring, 0, 1);
	while (!(cqe = ring_peek(&ring)));
	CHECK_EQUAL(cqe->user_data, data);
	CHECK_EQUAL(cqe->res, (int)strlen(text));
	CHECK_EQUAL(cqe->flags >> IORING_CQE_BUFFER_SHIFT, id);
	CHECK(!memcmp(g->buffers[id] + at, text, strlen(text)));
	ring_taken(&ring);
}

static void say(int fd, const char *text)
{
	CHECK_EQUAL(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

int main(void)
{
	struct group *used = &groups[0], *large = &groups[1], *bits = &groups[2],
		     *kernels = &groups[3];
	bool with_bits, with_kernels;

	test_init();
	ring_make(&ring, 16, 0);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, again));
	if (!make_group(used, 3, ENTRIES, 0))
		test_skip("no rings of buffers: %s", strerror(errno));
	if (!tells_heads(3))
		test_skip("no IORING_REGISTER_PBUF_STATUS");
	CHECK(make_group(large, 5, 512, 0));
	with_bits = make_group(bits, 700, ENTRIES, 2 /* IOU_PBUF_RING_INC */);
	with_kernels = make_group(kernels, 9, ENTRIES, IN_KERNEL);
	ring_nops(&ring, 20, 0);
	/* Once around, and a bit. */
	for (uint16_t i = 0; i < 11; i++) {
		say(pair[1], "before");
		receive(pair[0], used, 0, i);
		expect(used, i, i % ENTRIES, "before", 0);
		provide(used, i % ENTRIES);
	}
	for (uint16_t i = 0; with_kernels && i < 10; i++) {
		say(pair[1], "kernel's");
		receive(pair[0], kernels, 0, 300);
		expect(kernels, 300, i % ENTRIES, "kernel's", 0);
		provide(kernels, i % ENTRIES);
	}
	receive(again[0], used, 2 /* IORING_RECV_MULTISHOT */, 100);
	say(again[1], "first");
	expect(used, 100, 3, "first", 0);
	for (int i = 0; with_bits && i < 2; i++) {
		say(pair[1], "bit");
		receive(pair[0], bits, 0, 200);
		expect(bits, 200, 0, "bit", i * 3);
	}

	test_wait();
	if (test_break(1))
		used->ring->tail = head_of(used);
	if (test_break(2)) {
		say(again[1], "x");
		expect(used, 100, 4, "x", 0);
	}
	if (test_break(3) && with_kernels)
		kernels->ring->bufs[2].bid = 3;
	CHECK_EQUAL(head_of(used), 12);
	CHECK_EQUAL(head_of(large), 0);
	CHECK_EQUAL(used->ring->tail, ENTRIES + 11);
	say(again[1], "second");
	expect(used, 100, 4, "second", 0);
	say(pair[1], "after");
	receive(pair[0], used, 0, 101);
	expect(used, 101, 5, "after", 0);
	say(pair[1], "large");
	receive(pair[0], large, 0, 102);
	expect(large, 102, 0, "large", 0);
	CHECK_EQUAL(large->ring->bufs[511].bid, 511);
	if (with_bits) {
		say(pair[1], "third");
		receive(pair[0], bits, 0, 103);
		expect(bits, 103, 0, "third", 6);
	}
	if (with_kernels) {
		CHECK_EQUAL(head_of(kernels), 10);
		CHECK_EQUAL(kernels->ring->tail, ENTRIES + 10);
		say(pair[1], "later");
		receive(pair[0], kernels, 0, 104);
		expect(kernels, 104, 2, "later", 0);
		provide(kernels, 2);
		CHECK_EQUAL(head_of(kernels), 11);
	}
	ring_empty(&ring);
	test_pass();
}
