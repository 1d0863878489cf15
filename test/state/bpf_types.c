/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF maps and programs as compilers and libbpf make them: with type information (BTF) that they
 * share, of functions and lines; with constants in a frozen map that was tied to a program, a
 * function whose address is taken, and a map that only a program holds.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "bpf_calls.h"

#define INFO(kind, n) ((kind) << 24 | (n))

enum { T_INT = 1, T_U64, T_LOCK, T_VALUE, T_POINTER, T_PROTO, T_MAIN, T_EACH };

static const char names[] = "\0int\0u64\0bpf_spin_lock\0val\0value\0count\0lock\0context\0"
			    "count_all\0each\0some.c\0return 0;";

static uint32_t name_of(const char *name)
{
	const char *at = names + 1;

	while (strcmp(at, name))
		at += strlen(at) + 1;
	return (uint32_t)(at - names);
}

/* What a compiler writes of: struct value { u64 count; struct bpf_spin_lock lock; }; and so on. */
static size_t describe(uint8_t *to)
{
	const uint32_t types[] = {
		/* clang-format off */
		name_of("int"), INFO(BTF_KIND_INT, 0), 4, BTF_INT_SIGNED << 24 | 32,
		name_of("u64"), INFO(BTF_KIND_INT, 0), 8, 64,
		name_of("bpf_spin_lock"), INFO(BTF_KIND_STRUCT, 1), 4, name_of("val"), T_INT, 0,
		name_of("value"), INFO(BTF_KIND_STRUCT, 2), 16,
			name_of("count"), T_U64, 0, name_of("lock"), T_LOCK, 64,
		0, INFO(BTF_KIND_PTR, 0), 0,
		0, INFO(BTF_KIND_FUNC_PROTO, 1), T_INT, name_of("context"), T_POINTER,
		name_of("count_all"), INFO(BTF_KIND_FUNC, BTF_FUNC_GLOBAL), T_PROTO,
		name_of("each"), INFO(BTF_KIND_FUNC, BTF_FUNC_STATIC), T_PROTO,
		/* clang-format on */
	};
	const struct btf_header h = {.magic = BTF_MAGIC,
				     .version = BTF_VERSION,
				     .hdr_len = sizeof(h),
				     .type_len = sizeof(types),
				     .str_off = sizeof(types),
				     .str_len = sizeof(names)};

	memcpy(to, &h, sizeof(h));
	memcpy(to + sizeof(h), types, sizeof(types));
	memcpy(to + sizeof(h) + sizeof(types), names, sizeof(names));
	return sizeof(h) + sizeof(types) + sizeof(names);
}

static uint8_t described[1024], back[1024];

static int types_load(size_t *ret_size)
{
	union bpf_attr attr;

	*ret_size = describe(described);
	memset(&attr, 0, sizeof(attr));
	attr.btf = (uintptr_t)described;
	attr.btf_size = (uint32_t)*ret_size;
	return made(bpf(BPF_BTF_LOAD, &attr));
}

struct value {
	uint64_t count;
	uint32_t lock, pad;
};

static int typed_map(uint32_t type, uint32_t flags, int types)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = type;
	attr.key_size = 4;
	attr.value_size = sizeof(struct value);
	attr.max_entries = type == BPF_MAP_TYPE_ARRAY ? 1 : 8;
	attr.map_flags = flags;
	attr.btf_fd = (uint32_t)types;
	attr.btf_key_type_id = T_INT;
	attr.btf_value_type_id = T_VALUE;
	strcpy(attr.map_name, "typed");
	return made(bpf(BPF_MAP_CREATE, &attr));
}

static void put_value(int map, uint32_t key, uint64_t count)
{
	const struct value v = {.count = count};

	CHECK(!map_do(BPF_MAP_UPDATE_ELEM, map, &key, &v, 0));
}

/* Under its lock, as only a map can be read of which the kernel knows where the lock is. */
static uint64_t locked_value(int map, uint32_t key)
{
	struct value v = {};

	CHECK(!map_do(BPF_MAP_LOOKUP_ELEM, map, &key, &v, BPF_F_LOCK));
	return v.count;
}

static int constants_make(void)
{
	const uint64_t value = 3;
	const uint32_t key = 0;
	union bpf_attr attr;
	int fd;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = 4;
	attr.value_size = 8;
	attr.max_entries = 1;
	attr.map_flags = BPF_F_RDONLY_PROG;
	fd = made(bpf(BPF_MAP_CREATE, &attr));
	CHECK(!map_do(BPF_MAP_UPDATE_ELEM, fd, &key, &value, 0));
	map_freeze(fd);
	return fd;
}

static void bind_map(int program, int map)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_bind_map.prog_fd = (uint32_t)program;
	attr.prog_bind_map.map_fd = (uint32_t)map;
	CHECK(!bpf(BPF_PROG_BIND_MAP, &attr));
}

static int load_typed(const struct bpf_insn *p, size_t n, int types,
		      const struct bpf_func_info *functions, uint32_t nfunctions)
{
	struct bpf_line_info lines[4];
	union bpf_attr attr;
	uint32_t nlines = 0;

	/* At the beginning of each function, in front of something that is rewritten, and behind */
	for (uint32_t i = 0; i < nfunctions; i++) {
		lines[nlines] = (struct bpf_line_info){functions[i].insn_off, name_of("some.c"),
						       name_of("return 0;"), (7 + i) << 10 | 5};
		nlines++;
		if (i == 0)
			lines[nlines++] = (struct bpf_line_info){3, name_of("some.c"),
								 name_of("return 0;"), 99 << 10};
	}
	memset(&attr, 0, sizeof(attr));
	strcpy(attr.prog_name, "typed");
	attr.prog_btf_fd = (uint32_t)types;
	attr.func_info_rec_size = sizeof(*functions);
	attr.func_info = (uintptr_t)functions;
	attr.func_info_cnt = nfunctions;
	attr.line_info_rec_size = sizeof(lines[0]);
	attr.line_info = (uintptr_t)lines;
	attr.line_info_cnt = nlines;
	return load_with(&attr, BPF_PROG_TYPE_SCHED_CLS, p, n);
}

/* Counts in a map that nobody else holds, and goes through one of ours with a function. */
static int counter(int map, int hidden, int types)
{
	const struct bpf_insn p[] = {
		LDX(BPF_B, 7, 1, SKB(protocol)),
		LDX(BPF_W, 8, 1, SKB(mark)),
		ST(BPF_W, 10, -4, 1),
		LDX(BPF_W, 9, 1, SKB(len)),
		MAP(1, hidden),
		MOV(2, 10),
		ADDI(2, -4),
		CALL(BPF_FUNC_map_lookup_elem),
		JEQ(0, 0, 3),
		LDX(BPF_DW, 1, 0, 0),
		ADDI(1, 1),
		STX(BPF_DW, 0, 1, 0),
		MAP(1, map),
		I(BPF_LD | BPF_IMM | BPF_DW, 2, BPF_PSEUDO_FUNC, 0, 6),
		I(0, 0, 0, 0, 0),
		MOV(3, 10),
		SET(4, 0),
		CALL(BPF_FUNC_for_each_map_elem),
		ADDX(0, 9),
		EXIT,
		/* each: of (map, key, value, context) */
		LDX(BPF_DW, 1, 3, 0),
		ADDI(1, 10),
		STX(BPF_DW, 3, 1, 0),
		SET(0, 0),
		EXIT,
	};
	const struct bpf_func_info functions[] = {{0, T_MAIN}, {N(p) - 5, T_EACH}};

	return load_typed(p, N(p), types, functions, 2);
}

/* Is refused unless the constant is known. */
static int constant(int constants, int types)
{
	const struct bpf_insn p[] = {
		ST(BPF_DW, 10, -8, 0x11223344),
		MAP_VALUE(1, constants, 0),
		LDX(BPF_DW, 1, 1, 0),
		MOV(2, 10),
		ADDI(2, -8),
		ADDX(2, 1),
		LDX(BPF_B, 0, 2, 0),
		EXIT,
	};
	const struct bpf_func_info functions[] = {{0, T_MAIN}};

	return load_typed(p, N(p), types, functions, 1);
}

/* What the kernel tells of a program, with functions and lines. */
struct told {
	struct bpf_prog_info info;
	struct bpf_func_info functions[4];
	struct bpf_line_info lines[4];
	uint32_t maps[4];
};

static void tell(int fd, struct told *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->info.func_info_rec_size = sizeof(ret->functions[0]);
	ret->info.line_info_rec_size = sizeof(ret->lines[0]);
	ret->info.nr_func_info = ret->info.nr_line_info = ret->info.nr_map_ids = 4;
	ret->info.func_info = (uintptr_t)ret->functions;
	ret->info.line_info = (uintptr_t)ret->lines;
	ret->info.map_ids = (uintptr_t)ret->maps;
	info_of(fd, &ret->info, sizeof(ret->info));
}

static void check_same(int fd, const struct told *was)
{
	struct told is;

	tell(fd, &is);
	CHECK(!memcmp(is.info.tag, was->info.tag, sizeof(is.info.tag)));
	CHECK_EQUAL(is.info.xlated_prog_len, was->info.xlated_prog_len);
	CHECK_EQUAL(is.info.nr_func_info, was->info.nr_func_info);
	CHECK_EQUAL(is.info.nr_line_info, was->info.nr_line_info);
	CHECK_EQUAL(is.info.nr_map_ids, was->info.nr_map_ids);
	CHECK(!memcmp(is.functions, was->functions, sizeof(is.functions)));
	CHECK(!memcmp(is.lines, was->lines, sizeof(is.lines)));
}

static uint32_t number_of_types(int fd)
{
	struct bpf_btf_info info = {.btf = (uintptr_t)back, .btf_size = sizeof(back)};

	info_of(fd, &info, sizeof(info));
	return info.id;
}

static int types, again, typed, array, constants, count_all, known;

static void check_types(size_t size)
{
	uint32_t id = number_of_types(types);
	struct bpf_map_info map;
	struct told is;

	CHECK(!memcmp(described, back, size));
	CHECK_EQUAL(number_of_types(again), id);
	info_of(typed, &map, sizeof(map));
	CHECK_EQUAL(map.btf_id, id);
	CHECK_EQUAL(map.btf_key_type_id, T_INT);
	CHECK_EQUAL(map.btf_value_type_id, T_VALUE);
	CHECK(!strcmp(map.name, "typed"));
	info_of(array, &map, sizeof(map));
	CHECK_EQUAL(map.btf_id, id);
	tell(count_all, &is);
	CHECK_EQUAL(is.info.btf_id, id);
}

int main(void)
{
	struct told was[2], is;
	int hidden;
	size_t size;

	test_init();
	types = types_load(&size);
	again = by_number(BPF_BTF_GET_FD_BY_ID, number_of_types(types));
	typed = typed_map(BPF_MAP_TYPE_HASH, 0, types);
	array = typed_map(BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE, types);
	hidden = map_make(BPF_MAP_TYPE_ARRAY, 4, 8, 4);
	constants = constants_make();
	count_all = counter(typed, hidden, types);
	known = constant(constants, types);
	bind_map(count_all, constants);
	put_value(typed, 7, 70);
	put_value(typed, 9, 90);
	put_value(array, 0, 5);
	close(hidden);
	CHECK_EQUAL(run_program(count_all), 66);
	CHECK_EQUAL(run_program(known), 0x11);
	tell(count_all, &was[0]);
	tell(known, &was[1]);

	test_wait();
	if (test_break(1)) {
		close(count_all);
		count_all = constant(constants, types);
	}
	if (test_break(2)) {
		close(array);
		array = map_make(BPF_MAP_TYPE_ARRAY, 4, sizeof(struct value), 1);
	}
	check_types(size);
	check_same(count_all, &was[0]);
	check_same(known, &was[1]);
	CHECK_EQUAL(locked_value(typed, 7), 80);
	CHECK_EQUAL(run_program(count_all), 66);
	CHECK_EQUAL(run_program(known), 0x11);
	CHECK_EQUAL(locked_value(typed, 7), 90);
	CHECK_EQUAL(locked_value(typed, 9), 110);
	CHECK_EQUAL(locked_value(array, 0), 5);
	tell(count_all, &is);
	for (uint32_t i = 0; i < is.info.nr_map_ids; i++) {
		struct bpf_map_info map;
		int fd = by_number(BPF_MAP_GET_FD_BY_ID, is.maps[i]);

		info_of(fd, &map, sizeof(map));
		if (map.value_size == 8 && !map.map_flags)
			CHECK_EQUAL(value_of(fd, 1), 2);
		close(fd);
	}
	test_pass();
}
