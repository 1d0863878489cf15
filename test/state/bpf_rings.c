/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings of messages of BPF as libbpf has them: what a program wrote and nobody has read, messages
 * that were taken back, a ring that went round, one that was never full and stands in a map, one
 * that is empty; one that a filter of a socket writes to; one in which a process writes for
 * programs. Mapped, also by a child, and watched.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "bpf_calls.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define SIZE   8192u
#define PAGE   4096u
#define LARGE  (1u << 20)
#define LENGTH 52 /* of a message, with 4 bytes behind it */

struct ring {
	int fd;
	uint32_t size;
	volatile uint64_t *consumer, *producer;
	const uint8_t *data;
};

static struct ring round_ring, fresh, empty, large;
static uint8_t seen[4][SIZE];

static struct ring ring_make(uint32_t size)
{
	struct ring r = {.fd = map_make(BPF_MAP_TYPE_RINGBUF, 0, 0, size), .size = size};

	r.consumer = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd, 0);
	r.producer = mmap(NULL, PAGE + 2 * (size_t)size, PROT_READ, MAP_SHARED, r.fd, PAGE);
	CHECK(r.consumer != MAP_FAILED && r.producer != MAP_FAILED);
	r.data = (const uint8_t *)r.producer + PAGE;
	return r;
}

/* Writes the beginning of its context of `size`, and takes every message back that begins with 0.
 */
static int writer_make(int ring, int32_t size)
{
	const struct bpf_insn insns[] = {
		/* clang-format off */
		MOV(6, 1),
		MAP(1, ring), SET(2, size), SET(3, 0), CALL(BPF_FUNC_ringbuf_reserve),
		JEQ(0, 0, 11),
		LDX(BPF_DW, 7, 6, 0), STX(BPF_DW, 0, 7, 0),
		STX(BPF_DW, 0, 7, 8),
		MOV(1, 0), SET(2, 0),
		JEQ(7, 0, 2),
		CALL(BPF_FUNC_ringbuf_submit), I(BPF_JMP | BPF_JA, 0, 0, 1, 0),
		CALL(BPF_FUNC_ringbuf_discard),
		SET(0, 0), EXIT,
		SET(0, 1), EXIT,
		/* clang-format on */
	};
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_flags = BPF_F_SLEEPABLE;
	return load_with(&attr, BPF_PROG_TYPE_SYSCALL, insns, N(insns));
}

static void run_with(int program, uint64_t first)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = (uint32_t)program;
	attr.test.ctx_in = (uintptr_t)&first;
	attr.test.ctx_size_in = sizeof(first);
	CHECK(!bpf(BPF_PROG_TEST_RUN, &attr));
	CHECK_EQUAL(attr.test.retval, 0);
}

/* The next message, as libbpf reads them; 0: one that was taken back. */
static uint64_t take(struct ring *r, uint32_t length)
{
	uint64_t at = *r->consumer, value[2] = {};
	uint32_t header;

	CHECK(at < *r->producer);
	memcpy(&header, r->data + (at & (r->size - 1)), sizeof(header));
	CHECK_EQUAL(header & ~BPF_RINGBUF_DISCARD_BIT, length);
	memcpy(value, r->data + (at & (r->size - 1)) + 8, sizeof(value));
	CHECK_EQUAL(value[0], value[1]);
	CHECK_EQUAL(!(header & BPF_RINGBUF_DISCARD_BIT), !!value[0]);
	*r->consumer = at + (length + 15) / 8 * 8;
	return value[0];
}

static void make_rings(void)
{
	int writer, long_writer;

	round_ring = ring_make(SIZE);
	fresh = ring_make(PAGE);
	empty = ring_make(PAGE);
	large = ring_make(LARGE);
	writer = writer_make(round_ring.fd, LENGTH);
	for (uint64_t i = 1; i < 1000; i++) {
		run_with(writer, i);
		CHECK_EQUAL(take(&round_ring, LENGTH), i);
	}
	for (uint64_t i = 0; i < 8; i++)
		run_with(writer, i % 4 ? 5000 + i : 0);
	round_ring.consumer[5] = 55;
	writer = writer_make(fresh.fd, LENGTH);
	for (uint64_t i = 0; i < 4; i++)
		run_with(writer, i);
	take(&fresh, LENGTH);
	take(&fresh, LENGTH);
	writer = writer_make(empty.fd, LENGTH);
	for (uint64_t i = 1; i < 200; i++) {
		run_with(writer, i);
		CHECK_EQUAL(take(&empty, LENGTH), i);
	}
	long_writer = writer_make(large.fd, LARGE / 4);
	for (uint64_t i = 1; i < 10; i++) {
		run_with(long_writer, i);
		if (i < 7)
			CHECK_EQUAL(take(&large, LARGE / 4), i);
	}
}

static void see(uint8_t *to, const struct ring *r)
{
	memcpy(to, r->data, r->size < SIZE ? r->size : SIZE);
}

struct positions {
	uint64_t consumer, producer;
};

static struct positions positions_of(const struct ring *r)
{
	return (struct positions){*r->consumer, *r->producer};
}

static void check_positions(const struct ring *r, struct positions were)
{
	CHECK_EQUAL(*r->consumer, were.consumer);
	CHECK_EQUAL(*r->producer, were.producer);
}

static int watch(const struct ring *r, uint32_t events)
{
	struct epoll_event event = {.events = events};
	int set = epoll_create1(0);

	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, r->fd, &event));
	return set;
}

static int ready(int set)
{
	struct epoll_event event;

	return epoll_wait(set, &event, 1, 0);
}

/* It is woken by a message in a ring that it has read to the end. */
static int child(void *arg)
{
	int set = *(int *)arg;
	struct epoll_event event;

	test_hold();
	CHECK_EQUAL(epoll_wait(set, &event, 1, -1), 1);
	CHECK_EQUAL(take(&empty, LENGTH), 777);
	return 5;
}

/* ---- of a socket, and in a map ---- */

#define NOTED 16

static struct ring noted;
static int ends[2], outer;

/* A filter that notes each datagram, and lets it pass. */
static void attach_noter(void)
{
	noted = ring_make(PAGE);
	{
		const struct bpf_insn insns[] = {
			/* clang-format off */
			ST(BPF_DW, 10, -16, 321), ST(BPF_DW, 10, -8, 321),
			MAP(1, noted.fd), MOV(2, 10), ADDI(2, -16), SET(3, NOTED), SET(4, 0),
			CALL(BPF_FUNC_ringbuf_output),
			SET(0, 100), EXIT,
			/* clang-format on */
		};
		union bpf_attr attr;
		int program;

		memset(&attr, 0, sizeof(attr));
		program = load_with(&attr, BPF_PROG_TYPE_SOCKET_FILTER, insns, N(insns));
		CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
		CHECK(!setsockopt(ends[1], SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof(program)));
		close(program);
	}
}

static void put_into_map(void)
{
	const uint32_t second = 1;
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY_OF_MAPS;
	attr.key_size = 4;
	attr.value_size = 4;
	attr.max_entries = 2;
	attr.inner_map_fd = (uint32_t)fresh.fd;
	outer = made(bpf(BPF_MAP_CREATE, &attr));
	CHECK(!map_do(BPF_MAP_UPDATE_ELEM, outer, &second, &fresh.fd, 0));
}

static void check_in_map(void)
{
	struct bpf_map_info info = {};
	uint32_t second = 1, id = 0;

	info_of(fresh.fd, &info, sizeof(info));
	CHECK(!map_do(BPF_MAP_LOOKUP_ELEM, outer, &second, &id, 0));
	CHECK_EQUAL(id, info.id);
}

/* ---- one that a program would read ---- */

static struct ring given; /* the page of the producer, and its data, may be written */
static int types, reader;

static int types_make(void)
{
	enum { INT = 1, POINTER, OF_ONE, OF_TWO };
	static const char names[] = "\0int\0all\0one";
	static const uint32_t all[] = {
		/* clang-format off */
		1, BTF_KIND_INT << 24, 4, BTF_INT_SIGNED << 24 | 32,
		0, BTF_KIND_PTR << 24, 0,
		0, BTF_KIND_FUNC_PROTO << 24 | 1, INT, 1, POINTER,
		0, BTF_KIND_FUNC_PROTO << 24 | 2, INT, 1, POINTER, 1, POINTER,
		5, BTF_KIND_FUNC << 24, OF_ONE,
		9, BTF_KIND_FUNC << 24, OF_TWO,
		/* clang-format on */
	};

	return btf_load(all, N(all), names, sizeof(names));
}

/* Returns how many messages there were. */
static int reader_make(int ring)
{
	const struct bpf_insn insns[] = {
		/* clang-format off */
		MAP(1, ring),
		I(BPF_LD | BPF_IMM | BPF_DW, 2, BPF_PSEUDO_FUNC, 0, 5), I(0, 0, 0, 0, 0),
		SET(3, 0), SET(4, 0), CALL(BPF_FUNC_user_ringbuf_drain), EXIT,
		SET(0, 0), EXIT,
		/* clang-format on */
	};
	const struct bpf_func_info functions[] = {{0, 5}, {8, 6}};
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_flags = BPF_F_SLEEPABLE;
	attr.prog_btf_fd = (uint32_t)types;
	attr.func_info = (uintptr_t)functions;
	attr.func_info_cnt = 2;
	attr.func_info_rec_size = sizeof(functions[0]);
	return load_with(&attr, BPF_PROG_TYPE_SYSCALL, insns, N(insns));
}

static void give(uint64_t value)
{
	uint8_t *to = (uint8_t *)(uintptr_t)given.data + (*given.producer & (PAGE - 1));
	uint32_t header = LENGTH;

	memcpy(to, &header, sizeof(header));
	memcpy(to + 8, &value, sizeof(value));
	*given.producer += (LENGTH + 15) / 8 * 8;
}

static uint32_t read_given(void)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = (uint32_t)reader;
	CHECK(!bpf(BPF_PROG_TEST_RUN, &attr));
	return attr.test.retval;
}

static void make_given(void)
{
	given.size = PAGE;
	given.fd = map_make(BPF_MAP_TYPE_USER_RINGBUF, 0, 0, PAGE);
	given.consumer = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, given.fd, 0);
	given.producer = mmap(NULL, PAGE + 2 * (size_t)PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			      given.fd, PAGE);
	CHECK(given.consumer != MAP_FAILED && given.producer != MAP_FAILED);
	given.data = (const uint8_t *)given.producer + PAGE;
	types = types_make();
	reader = reader_make(given.fd);
	for (uint64_t i = 0; i < 100; i++) {
		give(i);
		CHECK_EQUAL(read_given(), 1);
	}
	given.producer[9] = 99;
	give(200);
	give(201);
	memcpy(seen[2], given.data, PAGE);
}

static void check_given(struct positions were)
{
	check_positions(&given, were);
	CHECK_EQUAL(given.producer[9], 99);
	CHECK(!memcmp(seen[2], given.data, PAGE));
	CHECK(!memcmp(seen[2], given.data + PAGE, PAGE));
	CHECK_EQUAL(read_given(), 2);
	give(202);
	CHECK_EQUAL(read_given(), 1);
	CHECK_EQUAL(*given.consumer, *given.producer);
}

/* All that is to be seen of one that was never full, and of others but what was read long ago. */
static void check_bytes(void)
{
	uint32_t after = (uint32_t)*round_ring.producer & (SIZE - 1);

	CHECK(!memcmp(seen[1], fresh.data, PAGE));
	for (uint32_t i = 16; i < SIZE; i++)
		CHECK_EQUAL(round_ring.data[after + i], seen[0][(after + i) & (SIZE - 1)]);
}

int main(void)
{
	int sets[3], writer;
	struct positions of_round, of_empty, of_large, of_given;
	pid_t pid;

	test_init();
	make_rings();
	make_given();
	attach_noter();
	put_into_map();
	CHECK_EQUAL(write(ends[0], "", 1), 1);
	sets[0] = watch(&round_ring, EPOLLIN);
	sets[1] = watch(&empty, EPOLLIN);
	sets[2] = watch(&empty, EPOLLIN | EPOLLET);
	pid = test_fork(child, &sets[2]);
	see(seen[0], &round_ring);
	see(seen[1], &fresh);
	of_round = positions_of(&round_ring);
	of_empty = positions_of(&empty);
	of_large = positions_of(&large);
	of_given = positions_of(&given);

	test_wait();
	if (test_break(1))
		*round_ring.consumer += (LENGTH + 15) / 8 * 8;
	if (test_break(2))
		CHECK(mmap((void *)empty.consumer, PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == empty.consumer);
	check_positions(&round_ring, of_round);
	check_positions(&empty, of_empty);
	check_positions(&large, of_large);
	CHECK_EQUAL(round_ring.consumer[5], 55);
	check_bytes();
	CHECK_EQUAL(ready(sets[0]), 1);
	CHECK_EQUAL(ready(sets[1]), 0);
	for (uint64_t i = 0; i < 8; i++)
		CHECK_EQUAL(take(&round_ring, LENGTH), i % 4 ? 5000 + i : 0);
	CHECK_EQUAL(ready(sets[0]), 0);
	CHECK_EQUAL(take(&fresh, LENGTH), 2);
	CHECK_EQUAL(take(&fresh, LENGTH), 3);
	for (uint64_t i = 7; i < 10; i++)
		CHECK_EQUAL(take(&large, LARGE / 4), i);
	writer = writer_make(empty.fd, LENGTH);
	run_with(writer, 777);
	test_reap(pid, 5);
	CHECK_EQUAL(*empty.consumer, *empty.producer);
	writer = writer_make(round_ring.fd, LENGTH);
	for (uint64_t i = 1; i < 300; i++) {
		run_with(writer, i);
		CHECK_EQUAL(take(&round_ring, LENGTH), i);
	}
	check_given(of_given);
	check_in_map();
	CHECK_EQUAL(write(ends[0], "", 1), 1);
	for (int i = 0; i < 2; i++)
		CHECK_EQUAL(take(&noted, NOTED), 321);
	CHECK_EQUAL(*noted.consumer, *noted.producer);
	test_pass();
}
