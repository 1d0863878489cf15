/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF programs of several types: with accesses to their context of all sizes, both ways, to
 * packets, maps, divisions, helpers, jumps and calls within. They have the same tag, which is a
 * hash of the instructions, do the same, and use the same maps.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "harness.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#define I(c, d, s, o, i) \
	((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})
#define LDX(size, d, s, o) I(BPF_LDX | BPF_MEM | (size), d, s, o, 0)
#define STX(size, d, s, o) I(BPF_STX | BPF_MEM | (size), d, s, o, 0)
#define ST(size, d, o, i)  I(BPF_ST | BPF_MEM | (size), d, 0, o, i)
#define MOV(d, s)	   I(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define SET(d, i)	   I(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define ADDI(d, i)	   I(BPF_ALU64 | BPF_ADD | BPF_K, d, 0, 0, i)
#define ADDX(d, s)	   I(BPF_ALU64 | BPF_ADD | BPF_X, d, s, 0, 0)
#define JEQ(d, i, o)	   I(BPF_JMP | BPF_JEQ | BPF_K, d, 0, o, i)
#define CALL(f)		   I(BPF_JMP | BPF_CALL, 0, 0, 0, f)
#define WITHIN(i)	   I(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_CALL, 0, i)
#define MAP(d, fd)	   I(BPF_LD | BPF_IMM | BPF_DW, d, BPF_PSEUDO_MAP_FD, 0, fd)
#define EXIT		   I(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define SKB(member)	   ((int16_t)offsetof(struct __sk_buff, member))
#define N(array)	   (sizeof(array) / sizeof((array)[0]))

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int map_make(uint32_t type, uint32_t key, uint32_t value, uint32_t entries)
{
	union bpf_attr attr;
	long fd;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = type;
	attr.key_size = key;
	attr.value_size = value;
	attr.max_entries = entries;
	fd = bpf(BPF_MAP_CREATE, &attr);
	if (fd < 0 && (errno == EPERM || errno == ENOSYS))
		test_skip("no BPF here");
	CHECK(fd >= 0);
	return (int)fd;
}

static int load(uint32_t type, uint32_t attach, const char *name, const struct bpf_insn *insns,
		size_t n)
{
	static char log[65536];
	union bpf_attr attr;
	long fd;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = type;
	attr.expected_attach_type = attach;
	attr.insns = (uintptr_t)insns;
	attr.insn_cnt = (uint32_t)n;
	attr.license = (uintptr_t) "GPL";
	attr.log_buf = (uintptr_t)log;
	attr.log_size = sizeof(log);
	attr.log_level = 1;
	strcpy(attr.prog_name, name);
	fd = bpf(BPF_PROG_LOAD, &attr);
	CHECKF(fd >= 0, "%s: %s: %s", name, strerror(errno), log);
	return (int)fd;
}

static void info_of(int fd, struct bpf_prog_info *ret)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	memset(ret, 0, sizeof(*ret));
	attr.info.bpf_fd = (uint32_t)fd;
	attr.info.info = (uintptr_t)ret;
	attr.info.info_len = sizeof(*ret);
	CHECK(!bpf(BPF_OBJ_GET_INFO_BY_FD, &attr));
}

static uint64_t value_of(int map, uint32_t key)
{
	union bpf_attr attr;
	uint64_t value = ~0ull;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)map;
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)&value;
	CHECK(!bpf(BPF_MAP_LOOKUP_ELEM, &attr));
	return value;
}

static void put(int map, uint32_t key, uint64_t value)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)map;
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)&value;
	CHECK(!bpf(BPF_MAP_UPDATE_ELEM, &attr));
}

/* What it says of a packet of 64 bytes. */
static uint32_t run(int fd)
{
	static uint8_t packet[64], out[128];
	union bpf_attr attr;

	for (size_t i = 0; i < sizeof(packet); i++)
		packet[i] = (uint8_t)(i * 3);
	packet[12] = 8;
	packet[13] = 0;
	packet[14] = 0x45;
	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = (uint32_t)fd;
	attr.test.data_size_in = sizeof(packet);
	attr.test.data_in = (uintptr_t)packet;
	attr.test.data_size_out = sizeof(out);
	attr.test.data_out = (uintptr_t)out;
	attr.test.repeat = 1;
	CHECK(!bpf(BPF_PROG_TEST_RUN, &attr));
	return attr.test.retval;
}

static int array, hash;

/* Counts in both maps, and sums up what it finds in the packet and about it. */
static int counter(void)
{
	const struct bpf_insn p[] = {
		MOV(6, 1),
		LDX(BPF_W, 7, 6, SKB(len)),
		LDX(BPF_B, 8, 6, SKB(protocol)),
		ADDX(7, 8),
		LDX(BPF_H, 8, 6, SKB(mark)),
		ADDX(7, 8),
		LDX(BPF_W, 2, 6, SKB(cb[1])),
		ADDX(7, 2),
		ST(BPF_W, 6, SKB(cb[0]), 77),
		STX(BPF_W, 6, 7, SKB(cb[2])),
		CALL(BPF_FUNC_get_prandom_u32),
		I(BPF_ALU64 | BPF_OR | BPF_K, 0, 0, 0, 1),
		MOV(8, 7),
		I(BPF_ALU64 | BPF_MUL | BPF_X, 8, 0, 0, 0),
		I(BPF_ALU64 | BPF_DIV | BPF_X, 8, 0, 0, 0),
		ADDX(7, 8),
		ST(BPF_W, 10, -4, 1),
		MAP(1, array),
		I(0, 0, 0, 0, 0),
		MOV(2, 10),
		ADDI(2, -4),
		CALL(BPF_FUNC_map_lookup_elem),
		JEQ(0, 0, 3),
		LDX(BPF_DW, 1, 0, 0),
		ADDI(1, 5),
		STX(BPF_DW, 0, 1, 0),
		MAP(1, hash),
		I(0, 0, 0, 0, 0),
		MOV(2, 10),
		ADDI(2, -4),
		CALL(BPF_FUNC_map_lookup_elem),
		JEQ(0, 0, 2),
		SET(1, 3),
		I(BPF_STX | BPF_ATOMIC | BPF_DW, 0, 1, 0, BPF_ADD),
		MOV(1, 6),
		SET(2, 14),
		MOV(3, 10),
		ADDI(3, -16),
		SET(4, 4),
		CALL(BPF_FUNC_skb_load_bytes),
		LDX(BPF_B, 1, 10, -16),
		ADDX(7, 1),
		MOV(1, 7),
		WITHIN(1),
		EXIT,
		SET(0, 1000),
		ADDX(0, 1),
		EXIT,
	};

	return load(BPF_PROG_TYPE_SCHED_CLS, 0, "counter", p, N(p));
}

/* As classic filters are, with bytes of the packet. */
static int classic(void)
{
	const struct bpf_insn p[] = {
		MOV(6, 1),
		I(BPF_LD | BPF_ABS | BPF_H, 0, 0, 0, 12),
		I(BPF_JMP | BPF_JNE | BPF_K, 0, 0, 3, 0x800),
		I(BPF_LD | BPF_ABS | BPF_B, 0, 0, 0, 20),
		I(BPF_JMP | BPF_JSET | BPF_K, 0, 0, 1, 0x40),
		SET(0, 17),
		EXIT,
	};

	return load(BPF_PROG_TYPE_SOCKET_FILTER, 0, "classic", p, N(p));
}

static int cgroup(void)
{
	const struct bpf_insn p[] = {
		LDX(BPF_W, 0, 1, SKB(ifindex)),
		LDX(BPF_W, 1, 1, SKB(len)),
		I(BPF_JMP | BPF_JGT | BPF_K, 1, 0, 1, 100),
		SET(0, 1),
		I(BPF_ALU64 | BPF_AND | BPF_K, 0, 0, 0, 1),
		EXIT,
	};

	return load(BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS, "group", p, N(p));
}

static int express(void)
{
	const struct bpf_insn p[] = {
		LDX(BPF_W, 2, 1, (int16_t)offsetof(struct xdp_md, data)),
		LDX(BPF_W, 3, 1, (int16_t)offsetof(struct xdp_md, data_end)),
		MOV(4, 2),
		ADDI(4, 20),
		I(BPF_JMP | BPF_JGT | BPF_X, 4, 3, 3, 0),
		LDX(BPF_B, 5, 2, 14),
		SET(0, XDP_DROP),
		JEQ(5, 0x45, 1),
		SET(0, XDP_PASS),
		EXIT,
	};

	return load(BPF_PROG_TYPE_XDP, 0, "express", p, N(p));
}

static int probe(void)
{
	const struct bpf_insn p[] = {
		LDX(BPF_DW, 6, 1, 112),
		CALL(BPF_FUNC_get_current_pid_tgid),
		MOV(7, 0),
		CALL(BPF_FUNC_ktime_get_ns),
		ADDX(7, 6),
		I(BPF_LD | BPF_IMM | BPF_DW, 1, 0, 0, 0x12345678),
		I(0, 0, 0, 0, 0x9abc),
		ADDX(7, 1),
		SET(0, 0),
		EXIT,
	};

	return load(BPF_PROG_TYPE_KPROBE, 0, "probe", p, N(p));
}

#define COUNT 5

static int fds[COUNT], again, copy;
static struct bpf_prog_info were[COUNT];

static int child(void *arg)
{
	test_hold();
	CHECK_EQUAL(run(fds[0]), run(again));
	return 3;
}

static void check_all(void)
{
	struct bpf_prog_info is, other;

	for (int i = 0; i < COUNT; i++) {
		info_of(fds[i], &is);
		CHECKF(!memcmp(is.tag, were[i].tag, sizeof(is.tag)), "%s has another tag",
		       were[i].name);
		CHECK_EQUAL(is.type, were[i].type);
		CHECK_EQUAL(is.xlated_prog_len, were[i].xlated_prog_len);
		CHECK_EQUAL(is.gpl_compatible, were[i].gpl_compatible);
		CHECK(!strcmp(is.name, were[i].name));
	}
	info_of(fds[0], &is);
	info_of(again, &other);
	CHECK_EQUAL(is.id, other.id);
	CHECK(syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, fds[0], again) != 0);
	CHECK_EQUAL(syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, fds[1], copy), 0);
}

int main(void)
{
	union bpf_attr attr;
	uint32_t said[4];
	pid_t pid;

	test_init();
	array = map_make(BPF_MAP_TYPE_ARRAY, 4, 8, 4);
	hash = map_make(BPF_MAP_TYPE_HASH, 4, 8, 4);
	put(array, 1, 100);
	put(hash, 1, 200);
	fds[0] = counter();
	fds[1] = classic();
	fds[2] = cgroup();
	fds[3] = express();
	fds[4] = probe();
	for (int i = 0; i < COUNT; i++)
		info_of(fds[i], &were[i]);
	memset(&attr, 0, sizeof(attr));
	attr.prog_id = were[0].id;
	again = (int)bpf(BPF_PROG_GET_FD_BY_ID, &attr);
	copy = dup(fds[1]);
	CHECK(again >= 0 && copy >= 0);
	for (int i = 0; i < 4; i++)
		said[i] = run(fds[i]);
	CHECK_EQUAL(value_of(array, 1), 105);
	CHECK_EQUAL(value_of(hash, 1), 203);
	pid = test_fork(child, NULL);

	test_wait();
	if (test_break(1)) {
		close(fds[2]);
		fds[2] = classic();
	}
	if (test_break(2))
		put(array, 1, 1);
	test_reap(pid, 3);
	check_all();
	CHECK_EQUAL(value_of(array, 1), 115);
	for (int i = 0; i < 4; i++)
		CHECK_EQUAL(run(fds[i]), said[i]);
	CHECK_EQUAL(value_of(array, 1), 120);
	CHECK_EQUAL(value_of(hash, 1), 212);
	test_pass();
}
