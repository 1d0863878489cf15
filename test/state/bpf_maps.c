/* SPDX-License-Identifier: Apache-2.0 */
/* BPF maps with their contents, several descriptions of one, and some that are read-only. */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "harness.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CPUS 1024

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int map_make(uint32_t type, uint32_t key, uint32_t value, uint32_t entries, uint32_t flags)
{
	union bpf_attr attr;
	long fd;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = type;
	attr.key_size = key;
	attr.value_size = value;
	attr.max_entries = entries;
	attr.map_flags = flags;
	strcpy(attr.map_name, "of_a_test");
	fd = bpf(BPF_MAP_CREATE, &attr);
	if (fd < 0 && (errno == EPERM || errno == ENOSYS))
		test_skip("no BPF maps here");
	CHECK(fd >= 0);
	return (int)fd;
}

static long map_do(int command, int fd, const void *key, const void *value)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)fd;
	attr.key = (uintptr_t)key;
	attr.value = (uintptr_t)value;
	return bpf(command, &attr);
}

static void put(int fd, uint32_t key, uint64_t value)
{
	CHECK(!map_do(BPF_MAP_UPDATE_ELEM, fd, &key, &value));
}

static void is(int fd, uint32_t key, uint64_t value)
{
	uint64_t v = ~0ull;

	CHECK(!map_do(BPF_MAP_LOOKUP_ELEM, fd, &key, &v));
	CHECK_EQUAL(v, value);
}

static void map_info(int fd, struct bpf_map_info *ret)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	memset(ret, 0, sizeof(*ret));
	attr.info.bpf_fd = (uint32_t)fd;
	attr.info.info = (uintptr_t)ret;
	attr.info.info_len = sizeof(*ret);
	CHECK(!bpf(BPF_OBJ_GET_INFO_BY_FD, &attr));
}

static int again(int fd, uint32_t flags)
{
	struct bpf_map_info info;
	union bpf_attr attr;
	long other;

	map_info(fd, &info);
	memset(&attr, 0, sizeof(attr));
	attr.map_id = info.id;
	attr.open_flags = flags;
	other = bpf(BPF_MAP_GET_FD_BY_ID, &attr);
	CHECK(other >= 0);
	return (int)other;
}

static uint32_t count(int fd)
{
	uint32_t n = 0, key = 0, next = 0;

	for (const uint32_t *last = NULL; !map_do(BPF_MAP_GET_NEXT_KEY, fd, last, &next); n++) {
		key = next;
		last = &key;
	}
	return n;
}

static void freeze(int fd)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)fd;
	CHECK(!bpf(BPF_MAP_FREEZE, &attr));
}

/* From all processors, as many as it takes. */
static void put_all(int fd, uint32_t n)
{
	cpu_set_t own;

	CHECK(!sched_getaffinity(0, sizeof(own), &own));
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		cpu_set_t only;

		CPU_ZERO(&only);
		CPU_SET(cpu, &only);
		if (!CPU_ISSET(cpu, &own))
			continue;
		CHECK(!sched_setaffinity(0, sizeof(only), &only));
		for (uint32_t i = 0; i < n; i++)
			put(fd, (uint32_t)cpu * n + i, i);
	}
	CHECK(!sched_setaffinity(0, sizeof(own), &own));
}

struct held {
	uint32_t n, keys[1000];
};

static void look(int fd, struct held *ret)
{
	uint32_t next = 0;

	ret->n = 0;
	for (const uint32_t *last = NULL; !map_do(BPF_MAP_GET_NEXT_KEY, fd, last, &next);) {
		CHECK(ret->n < 1000);
		ret->keys[ret->n++] = next;
		last = &ret->keys[ret->n - 1];
	}
	CHECK(ret->n > 100);
}

static void holds(int fd, const struct held *want)
{
	uint64_t v;

	CHECK_EQUAL(count(fd), want->n);
	for (uint32_t i = 0; i < want->n; i++)
		CHECK(!map_do(BPF_MAP_LOOKUP_ELEM, fd, &want->keys[i], &v));
}

struct prefix {
	uint32_t bits;
	uint8_t address[4];
};

int main(void)
{
	const struct prefix wide = {8, {10}}, narrow = {24, {10, 1, 2}},
			    asked = {32, {10, 1, 2, 9}};
	static struct held in_full, in_apart;
	int hash, reader, copy, array, lru, full, apart, trie, queue, stack, frozen, each, only;
	static uint64_t values[CPUS], back[CPUS];
	struct bpf_map_info info;
	uint32_t seven = 7;
	uint64_t v;

	test_init();
	hash = map_make(BPF_MAP_TYPE_HASH, 4, 8, 3000, BPF_F_NO_PREALLOC);
	array = map_make(BPF_MAP_TYPE_ARRAY, 4, 8, 100000, BPF_F_MMAPABLE);
	lru = map_make(BPF_MAP_TYPE_LRU_HASH, 4, 8, 200, 0);
	full = map_make(BPF_MAP_TYPE_LRU_HASH, 4, 8, 1000, 0);
	apart = map_make(BPF_MAP_TYPE_LRU_HASH, 4, 8, 1000, BPF_F_NO_COMMON_LRU);
	trie = map_make(BPF_MAP_TYPE_LPM_TRIE, sizeof(wide), 8, 10, BPF_F_NO_PREALLOC);
	queue = map_make(BPF_MAP_TYPE_QUEUE, 0, 8, 5, 0);
	stack = map_make(BPF_MAP_TYPE_STACK, 0, 8, 5, 0);
	frozen = map_make(BPF_MAP_TYPE_ARRAY, 4, 8, 3, 0);
	each = map_make(BPF_MAP_TYPE_PERCPU_HASH, 4, 8, 10, 0);
	only = map_make(BPF_MAP_TYPE_HASH, 4, 8, 10, BPF_F_RDONLY);
	for (uint32_t i = 0; i < 2000; i++)
		put(hash, i * 3, i * 1000003ull);
	reader = again(hash, BPF_F_RDONLY);
	copy = dup(hash);
	put(array, 5, 55);
	put(array, 99999, 1);
	for (uint32_t i = 0; i < 50; i++)
		put(lru, i, i);
	for (uint32_t i = 0; i < 3000; i++)
		put(full, i, i);
	put_all(apart, 2000);
	look(full, &in_full);
	look(apart, &in_apart);
	v = 1;
	CHECK(!map_do(BPF_MAP_UPDATE_ELEM, trie, &wide, &v));
	v = 2;
	CHECK(!map_do(BPF_MAP_UPDATE_ELEM, trie, &narrow, &v));
	for (v = 1; v <= 5; v++) {
		CHECK(!map_do(BPF_MAP_UPDATE_ELEM, queue, NULL, &v));
		CHECK(!map_do(BPF_MAP_UPDATE_ELEM, stack, NULL, &v));
	}
	for (v = 6; v <= 8; v++) {
		uint64_t old;

		CHECK(!map_do(BPF_MAP_LOOKUP_AND_DELETE_ELEM, queue, NULL, &old));
		CHECK(!map_do(BPF_MAP_UPDATE_ELEM, queue, NULL, &v));
	}
	put(frozen, 1, 11);
	freeze(frozen);
	for (int i = 0; i < CPUS; i++)
		values[i] = (uint64_t)i * 7;
	CHECK(!map_do(BPF_MAP_UPDATE_ELEM, each, &seven, values));
	memset(values, 0, sizeof(values)); /* there are fewer processors */
	CHECK(!map_do(BPF_MAP_LOOKUP_ELEM, each, &seven, values));
	put(again(only, 0), 4, 44);

	test_wait();
	if (test_break(1))
		put(hash, 3, 4);
	if (test_break(2))
		map_do(BPF_MAP_LOOKUP_AND_DELETE_ELEM, queue, NULL, &v);
	CHECK_EQUAL(count(hash), 2000);
	for (uint32_t i = 0; i < 2000; i++)
		is(reader, i * 3, i * 1000003ull);
	CHECK(map_do(BPF_MAP_UPDATE_ELEM, reader, &seven, &v) < 0 && errno == EPERM);
	put(copy, 6, 66);
	is(reader, 6, 66);
	map_info(hash, &info);
	CHECK(!strcmp(info.name, "of_a_test"));
	CHECK_EQUAL(info.max_entries, 3000);
	CHECK_EQUAL(info.map_flags, BPF_F_NO_PREALLOC);
	is(array, 5, 55);
	is(array, 6, 0);
	is(array, 99999, 1);
	CHECK_EQUAL(count(lru), 50);
	for (uint32_t i = 0; i < 50; i++)
		is(lru, i, i);
	if (test_break(3))
		map_do(BPF_MAP_DELETE_ELEM, full, &in_full.keys[9], NULL);
	if (test_break(4))
		put(apart, 1u << 30, 1);
	holds(full, &in_full);
	holds(apart, &in_apart);
	CHECK(!map_do(BPF_MAP_LOOKUP_ELEM, trie, &asked, &v));
	CHECK_EQUAL(v, 2);
	for (uint64_t i = 4; i <= 8; i++) {
		CHECK(!map_do(BPF_MAP_LOOKUP_AND_DELETE_ELEM, queue, NULL, &v));
		CHECK_EQUAL(v, i);
		CHECK(!map_do(BPF_MAP_LOOKUP_AND_DELETE_ELEM, stack, NULL, &v));
		CHECK_EQUAL(v, 9 - i);
	}
	is(frozen, 1, 11);
	CHECK(map_do(BPF_MAP_UPDATE_ELEM, frozen, &seven, &v) < 0 && errno == EPERM);
	CHECK(!map_do(BPF_MAP_LOOKUP_ELEM, each, &seven, back));
	CHECK(!memcmp(values, back, sizeof(values)));
	is(only, 4, 44);
	CHECK(map_do(BPF_MAP_UPDATE_ELEM, only, &seven, &v) < 0 && errno == EPERM);
	test_pass();
}
