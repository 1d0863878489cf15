/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_STATE_BPF_CALLS_H
#define TEST_STATE_BPF_CALLS_H

/* bpf(2) for tests that write their programs by hand. */

#include "harness.h"

#include <linux/bpf.h>
#include <linux/btf.h>
#include <stddef.h>
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
#define MAP(d, fd)	   I(BPF_LD | BPF_IMM | BPF_DW, d, BPF_PSEUDO_MAP_FD, 0, fd), I(0, 0, 0, 0, 0)
#define MAP_VALUE(d, fd, off) \
	I(BPF_LD | BPF_IMM | BPF_DW, d, BPF_PSEUDO_MAP_VALUE, 0, fd), I(0, 0, 0, 0, off)
#define EXIT	    I(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define SKB(member) ((int16_t)offsetof(struct __sk_buff, member))
#define N(array)    (sizeof(array) / sizeof((array)[0]))

static inline long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* A descriptor, or the test has nothing to do here. */
static inline int made(long fd)
{
	if (fd < 0 && (errno == EPERM || errno == ENOSYS))
		test_skip("no BPF here");
	CHECKF(fd >= 0, "%s", strerror(errno));
	return (int)fd;
}

/* Types: the words that describe them, and all of their names. */
static inline int btf_load(const uint32_t *types, size_t n, const char *names, size_t length)
{
	const struct btf_header h = {.magic = BTF_MAGIC,
				     .version = BTF_VERSION,
				     .hdr_len = sizeof(h),
				     .type_len = (uint32_t)(n * sizeof(*types)),
				     .str_off = (uint32_t)(n * sizeof(*types)),
				     .str_len = (uint32_t)length};
	uint8_t all[1024];
	union bpf_attr attr;

	CHECK(sizeof(h) + h.type_len + length <= sizeof(all));
	memcpy(all, &h, sizeof(h));
	memcpy(all + sizeof(h), types, h.type_len);
	memcpy(all + sizeof(h) + h.type_len, names, length);
	memset(&attr, 0, sizeof(attr));
	attr.btf = (uintptr_t)all;
	attr.btf_size = (uint32_t)(sizeof(h) + h.type_len + length);
	return made(bpf(BPF_BTF_LOAD, &attr));
}

static inline int map_make(uint32_t type, uint32_t key, uint32_t value, uint32_t entries)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = type;
	attr.key_size = key;
	attr.value_size = value;
	attr.max_entries = entries;
	return made(bpf(BPF_MAP_CREATE, &attr));
}

static inline long map_do(int command, int fd, const void *key, const void *value, uint64_t flags)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)fd;
	attr.key = (uintptr_t)key;
	attr.value = (uintptr_t)value;
	attr.flags = flags;
	return bpf(command, &attr);
}

static inline void put(int map, uint32_t key, uint64_t value)
{
	CHECK(!map_do(BPF_MAP_UPDATE_ELEM, map, &key, &value, 0));
}

static inline uint64_t value_of(int map, uint32_t key)
{
	uint64_t value = ~0ull;

	CHECK(!map_do(BPF_MAP_LOOKUP_ELEM, map, &key, &value, 0));
	return value;
}

static inline void map_freeze(int fd)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)fd;
	CHECK(!bpf(BPF_MAP_FREEZE, &attr));
}

static inline int by_number(int command, uint32_t id)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_id = id; /* or map_id, or btf_id */
	return made(bpf(command, &attr));
}

static inline void info_of(int fd, void *info, uint32_t size)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.info.bpf_fd = (uint32_t)fd;
	attr.info.info = (uintptr_t)info;
	attr.info.info_len = size;
	CHECKF(!bpf(BPF_OBJ_GET_INFO_BY_FD, &attr), "%s", strerror(errno));
}

/* `attr` may have more than is set here. */
static inline int load_with(union bpf_attr *attr, uint32_t type, const struct bpf_insn *insns,
			    size_t n)
{
	static char log[65536];
	long fd;

	attr->prog_type = type;
	attr->insns = (uintptr_t)insns;
	attr->insn_cnt = (uint32_t)n;
	attr->license = (uintptr_t) "GPL";
	attr->log_buf = (uintptr_t)log;
	attr->log_size = sizeof(log);
	attr->log_level = 1;
	fd = bpf(BPF_PROG_LOAD, attr);
	CHECKF(fd >= 0, "%s: %s", strerror(errno), log);
	return (int)fd;
}

/* What it says of a packet of 64 bytes. */
static inline uint32_t run_program(int fd)
{
	static uint8_t packet[64], out[128];
	union bpf_attr attr;

	packet[12] = 8;
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

#endif
