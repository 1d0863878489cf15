/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF programs of several types: with accesses to their context of all sizes, both ways, to
 * packets, maps, divisions, helpers, jumps and calls within. They have the same tag, which is a
 * hash of the instructions, do the same, and use the same maps.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "bpf_calls.h"

#include <fcntl.h>
#include <linux/kcmp.h>

static int load(uint32_t type, uint32_t attach, const char *name, const struct bpf_insn *insns,
		size_t n)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.expected_attach_type = attach;
	strcpy(attr.prog_name, name);
	return load_with(&attr, type, insns, n);
}

static int array, hash;

/* A number can be written to the context since 6.3; before that, what is in a register. */
static bool stores_numbers(void)
{
	const struct bpf_insn p[] = {ST(BPF_W, 1, SKB(cb[0]), 77), SET(0, 0), EXIT};
	union bpf_attr attr;
	long fd;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_SCHED_CLS;
	attr.insns = (uintptr_t)p;
	attr.insn_cnt = N(p);
	attr.license = (uintptr_t) "GPL";
	fd = bpf(BPF_PROG_LOAD, &attr);
	if (fd >= 0)
		close((int)fd);
	return fd >= 0;
}

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
		stores_numbers() ? ST(BPF_W, 6, SKB(cb[0]), 77) : STX(BPF_W, 6, 7, SKB(cb[0])),
		STX(BPF_W, 6, 7, SKB(cb[2])),
		CALL(BPF_FUNC_get_prandom_u32),
		I(BPF_ALU64 | BPF_OR | BPF_K, 0, 0, 0, 1),
		MOV(8, 7),
		I(BPF_ALU64 | BPF_MUL | BPF_X, 8, 0, 0, 0),
		I(BPF_ALU64 | BPF_DIV | BPF_X, 8, 0, 0, 0),
		ADDX(7, 8),
		ST(BPF_W, 10, -4, 1),
		MAP(1, array),
		MOV(2, 10),
		ADDI(2, -4),
		CALL(BPF_FUNC_map_lookup_elem),
		JEQ(0, 0, 3),
		LDX(BPF_DW, 1, 0, 0),
		ADDI(1, 5),
		STX(BPF_DW, 0, 1, 0),
		MAP(1, hash),
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
	CHECK_EQUAL(run_program(fds[0]), run_program(again));
	return 3;
}

static void check_all(void)
{
	struct bpf_prog_info is, other;

	for (int i = 0; i < COUNT; i++) {
		memset(&is, 0, sizeof(is));
		info_of(fds[i], &is, sizeof(is));
		CHECKF(!memcmp(is.tag, were[i].tag, sizeof(is.tag)), "%s has another tag",
		       were[i].name);
		CHECK_EQUAL(is.type, were[i].type);
		CHECK_EQUAL(is.xlated_prog_len, were[i].xlated_prog_len);
		CHECK_EQUAL(is.gpl_compatible, were[i].gpl_compatible);
		CHECK(!strcmp(is.name, were[i].name));
	}
	memset(&is, 0, sizeof(is));
	info_of(fds[0], &is, sizeof(is));
	memset(&other, 0, sizeof(other));
	info_of(again, &other, sizeof(other));
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
	memset(were, 0, sizeof(were));
	for (int i = 0; i < COUNT; i++)
		info_of(fds[i], &were[i], sizeof(were[i]));
	memset(&attr, 0, sizeof(attr));
	attr.prog_id = were[0].id;
	again = (int)bpf(BPF_PROG_GET_FD_BY_ID, &attr);
	copy = dup(fds[1]);
	CHECK(again >= 0 && copy >= 0);
	for (int i = 0; i < 4; i++)
		said[i] = run_program(fds[i]);
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
		CHECK_EQUAL(run_program(fds[i]), said[i]);
	CHECK_EQUAL(value_of(array, 1), 120);
	CHECK_EQUAL(value_of(hash, 1), 212);
	test_pass();
}
