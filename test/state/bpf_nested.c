/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF maps of maps, with some that nobody else has, with places that are empty, and with none; and
 * an array of programs that call each other, one of which only the array holds.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "bpf_calls.h"

static int outer_make(uint32_t type, int like)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = type;
	attr.key_size = 4;
	attr.value_size = 4;
	attr.max_entries = 4;
	attr.inner_map_fd = (uint32_t)like;
	return made(bpf(BPF_MAP_CREATE, &attr));
}

static void place(int map, uint32_t key, int fd)
{
	CHECK(!map_do(BPF_MAP_UPDATE_ELEM, map, &key, &fd, 0));
}

/* The number of what stands there; 0: nothing. */
static uint32_t standing(int map, uint32_t key)
{
	uint32_t id = 0;

	CHECK(!map_do(BPF_MAP_LOOKUP_ELEM, map, &key, &id, 0) || errno == ENOENT);
	return id;
}

static uint32_t number(int map)
{
	struct bpf_map_info info;

	info_of(map, &info, sizeof(info));
	return info.id;
}

static uint32_t size_of(int map)
{
	struct bpf_map_info info;

	info_of(map, &info, sizeof(info));
	return info.max_entries;
}

static int load(const struct bpf_insn *p, size_t n)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	return load_with(&attr, BPF_PROG_TYPE_SCHED_CLS, p, n);
}

/* What the map at a place of another holds for key 1. */
static int reader(int outer, uint32_t place_there)
{
	const struct bpf_insn p[] = {
		ST(BPF_W, 10, -4, (int)place_there),
		MAP(1, outer),
		MOV(2, 10),
		ADDI(2, -4),
		CALL(BPF_FUNC_map_lookup_elem),
		JEQ(0, 0, 8),
		MOV(1, 0),
		ST(BPF_W, 10, -4, 1),
		MOV(2, 10),
		ADDI(2, -4),
		CALL(BPF_FUNC_map_lookup_elem),
		JEQ(0, 0, 2),
		LDX(BPF_DW, 0, 0, 0),
		EXIT,
		SET(0, 7777),
		EXIT,
	};

	return load(p, N(p));
}

/* Goes on with another program, if there is one. */
static int caller(int programs, int place_there)
{
	const struct bpf_insn p[] = {
		MAP(2, programs), SET(3, place_there), CALL(BPF_FUNC_tail_call), SET(0, 1), EXIT,
	};

	return load(p, N(p));
}

static int sayer(int what)
{
	const struct bpf_insn p[] = {SET(0, what), EXIT};

	return load(p, N(p));
}

int main(void)
{
	int array, hash, empty, plain, hidden, programs, said, readers[3], callers[3];
	const uint32_t two = 2, three = 3;

	test_init();
	plain = map_make(BPF_MAP_TYPE_ARRAY, 4, 8, 4);
	hidden = map_make(BPF_MAP_TYPE_ARRAY, 4, 8, 4);
	array = outer_make(BPF_MAP_TYPE_ARRAY_OF_MAPS, plain);
	hash = outer_make(BPF_MAP_TYPE_HASH_OF_MAPS, plain);
	empty = outer_make(BPF_MAP_TYPE_ARRAY_OF_MAPS, plain);
	put(plain, 1, 11);
	put(hidden, 1, 22);
	place(array, 0, plain);
	place(array, 2, hidden);
	place(hash, 9, hidden);
	place(hash, 10, plain);
	close(hidden);
	readers[0] = reader(array, 2);
	readers[1] = reader(hash, 9);
	readers[2] = reader(array, 3);
	programs = map_make(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 4);
	said = sayer(42);
	place(programs, 1, said);
	close(said);
	callers[0] = caller(programs, 1);
	callers[1] = caller(programs, 2);
	callers[2] = caller(programs, 3);
	place(programs, 3, callers[0]);
	CHECK_EQUAL(run_program(readers[0]), 22);
	CHECK_EQUAL(run_program(callers[2]), 42);

	test_wait();
	if (test_break(1))
		CHECK(!map_do(BPF_MAP_DELETE_ELEM, array, &two, NULL, 0));
	if (test_break(2))
		CHECK(!map_do(BPF_MAP_DELETE_ELEM, programs, &three, NULL, 0));
	CHECK_EQUAL(standing(array, 0), number(plain));
	CHECK_EQUAL(standing(hash, 10), number(plain));
	CHECK_EQUAL(standing(array, 1), 0);
	CHECK_EQUAL(standing(empty, 0), 0);
	CHECK_EQUAL(standing(array, 2), standing(hash, 9));
	CHECK_EQUAL(size_of(empty), 4);
	CHECK_EQUAL(run_program(readers[0]), 22);
	CHECK_EQUAL(run_program(readers[1]), 22);
	CHECK_EQUAL(run_program(readers[2]), 7777);
	put(by_number(BPF_MAP_GET_FD_BY_ID, standing(hash, 9)), 1, 33);
	CHECK_EQUAL(run_program(readers[0]), 33);
	CHECK_EQUAL(run_program(callers[0]), 42);
	CHECK_EQUAL(run_program(callers[1]), 1);
	CHECK_EQUAL(run_program(callers[2]), 42);
	place(empty, 3, plain);
	CHECK_EQUAL(standing(empty, 3), number(plain));
	test_pass();
}
