/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF maps in memory, as skeletons of libbpf have them: a part for writing, which a child has, too,
 * a part for reading alone, and constants in a frozen one.
 */
/* may-refuse: permission */
/* may-refuse: kernel-too-old */
#include "bpf_calls.h"

#include <sys/mman.h>

#define PER_PAGE 512u
#define ENTRIES	 (4 * PER_PAGE)

static volatile uint64_t *data, *tail;
static const volatile uint64_t *constants;

static int mappable(uint32_t entries, uint32_t flags)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = 4;
	attr.value_size = 8;
	attr.max_entries = entries;
	attr.map_flags = BPF_F_MMAPABLE | flags;
	return made(bpf(BPF_MAP_CREATE, &attr));
}

static void *map_it(int fd, int prot, size_t size, off_t offset)
{
	void *at = mmap(NULL, size, prot, MAP_SHARED, fd, offset);

	CHECK(at != MAP_FAILED);
	return at;
}

static int child(void *arg)
{
	test_hold();
	CHECK_EQUAL(data[3], 33);
	data[4] = 44;
	return 5;
}

int main(void)
{
	int map, frozen;
	pid_t pid;

	test_init();
	map = mappable(ENTRIES, 0);
	frozen = mappable(1, BPF_F_RDONLY_PROG);
	data = map_it(map, PROT_READ | PROT_WRITE, 8192, 0);
	tail = map_it(map, PROT_READ, 4096, 8192);
	put(frozen, 0, 77);
	map_freeze(frozen);
	constants = map_it(frozen, PROT_READ, 4096, 0);
	data[3] = 33;
	data[PER_PAGE] = 512;
	put(map, 2 * PER_PAGE + 1, 1025);
	pid = test_fork(child, NULL);

	test_wait();
	if (test_break(1))
		data[3] = 34;
	if (test_break(2))
		CHECK(mmap((void *)data, 8192, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (void *)data);
	CHECK_EQUAL(data[3], 33);
	CHECK_EQUAL(data[PER_PAGE], 512);
	CHECK_EQUAL(tail[1], 1025);
	CHECK_EQUAL(constants[0], 77);
	test_reap(pid, 5);
	CHECK_EQUAL(value_of(map, 4), 44);
	put(map, 5, 55);
	CHECK_EQUAL(data[5], 55);
	put(map, 2 * PER_PAGE, 1024);
	CHECK_EQUAL(tail[0], 1024);
	CHECK(mprotect((void *)(uintptr_t)constants, 4096, PROT_READ | PROT_WRITE) < 0);
	test_pass();
}
