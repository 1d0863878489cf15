/* SPDX-License-Identifier: Apache-2.0 */
/* A program with a descriptor of a kind of its own of the kernel, which cannot be saved: its
 * argument says which. */
#include "harness.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

static void opened(long fd, const char *what)
{
	if (fd < 0)
		test_skip("no %s here: %s", what, strerror(errno));
}

static void landlock(void)
{
	const struct landlock_ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE};

	opened(syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0), "landlock");
}

static void notify(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	const struct sock_fprog program = {1, &allow};

	opened(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
		       &program),
	       "seccomp");
}

static void perf(void)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
				       .size = sizeof(attr),
				       .config = PERF_COUNT_SW_TASK_CLOCK,
				       .exclude_kernel = 1};

	opened(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0), "performance counter");
}

/* From 6.18 on. */
static void pidfd(void)
{
	long fd = syscall(SYS_pidfd_open, getpid(), 0);

	opened(fd, "pidfd");
	opened(fsetxattr((int)fd, "trusted.test", "x", 1, 0), "attribute of a pidfd");
}

static long bpf(int command, const union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* One that looks at its context, at `offset`. */
static long load(uint32_t type, uint32_t attach, int16_t offset)
{
	const struct bpf_insn insns[] = {
		{.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 0, .src_reg = 1, .off = offset},
		{.code = BPF_ALU64 | BPF_AND | BPF_K, .dst_reg = 0, .imm = 1},
		{.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr attr = {};

	attr.prog_type = type;
	attr.expected_attach_type = attach;
	attr.insns = (uintptr_t)insns;
	attr.insn_cnt = sizeof(insns) / sizeof(insns[0]);
	attr.license = (uintptr_t) "GPL";
	return bpf(BPF_PROG_LOAD, &attr);
}

/* To the network namespace, which lasts as long as the descriptor. */
static void bpf_link(void)
{
	union bpf_attr attr = {};
	long fd = load(BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP,
		       offsetof(struct bpf_sk_lookup, family));

	opened(fd, "BPF");
	attr.link_create.prog_fd = (uint32_t)fd;
	attr.link_create.target_fd = (uint32_t)syscall(SYS_openat, -1, "/proc/self/ns/net", 0);
	attr.link_create.attach_type = BPF_SK_LOOKUP;
	opened(bpf(BPF_LINK_CREATE, &attr), "BPF link");
	CHECK(!close((int)fd) && !close((int)attr.link_create.target_fd));
}

/* The number of a function in the types of the kernel, which is read type by type. */
static uint32_t kernel_function(const char *name)
{
	static uint8_t data[32 << 20];
	/* what follows a type, and for each of its members */
	static const uint8_t more[][2] = {
		[BTF_KIND_INT] = {4, 0},      [BTF_KIND_ARRAY] = {12, 0},
		[BTF_KIND_STRUCT] = {0, 12},  [BTF_KIND_UNION] = {0, 12},
		[BTF_KIND_ENUM] = {0, 8},     [BTF_KIND_FUNC_PROTO] = {0, 8},
		[BTF_KIND_VAR] = {4, 0},      [BTF_KIND_DATASEC] = {0, 12},
		[BTF_KIND_DECL_TAG] = {4, 0}, [BTF_KIND_ENUM64] = {0, 12},
	};
	const struct btf_header *h = (const void *)data;
	FILE *file = fopen("/sys/kernel/btf/vmlinux", "r");
	size_t size = file ? fread(data, 1, sizeof(data), file) : 0;
	const uint8_t *at = data + h->hdr_len + h->type_off, *end = at + h->type_len;

	if (file)
		fclose(file);
	for (uint32_t id = 1; size && at < end; id++) {
		const struct btf_type *t = (const void *)at;
		uint32_t kind = BTF_INFO_KIND(t->info);

		if (kind == BTF_KIND_FUNC &&
		    !strcmp((const char *)data + h->hdr_len + h->str_off + t->name_off, name))
			return id;
		at += sizeof(*t);
		if (kind < sizeof(more) / sizeof(more[0]))
			at += more[kind][0] + more[kind][1] * BTF_INFO_VLEN(t->info);
	}
	test_skip("the kernel tells of no function %s", name);
}

/* The first types that there are, those of the kernel. */
static void btf(void)
{
	union bpf_attr attr = {};

	opened(bpf(BPF_BTF_GET_NEXT_ID, &attr), "BTF");
	attr.btf_id = attr.next_id;
	opened(bpf(BPF_BTF_GET_FD_BY_ID, &attr), "BTF");
}

static long load_insns(union bpf_attr *attr, uint32_t type, const struct bpf_insn *insns,
		       uint32_t n)
{
	attr->prog_type = type;
	attr->insns = (uintptr_t)insns;
	attr->insn_cnt = n;
	attr->license = (uintptr_t) "GPL";
	return bpf(BPF_PROG_LOAD, attr);
}

/* Of a function of the kernel. */
static void bpf_attach(void)
{
	const struct bpf_insn insns[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K},
					 {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr attr = {};

	attr.expected_attach_type = BPF_TRACE_ITER;
	attr.attach_btf_id = kernel_function("bpf_iter_task");
	opened(load_insns(&attr, BPF_PROG_TYPE_TRACING, insns, 2), "BPF");
}

/* Calls functions of the kernel. */
static void bpf_kfunc(void)
{
	const struct bpf_insn insns[] = {{.code = BPF_JMP | BPF_CALL,
					  .src_reg = BPF_PSEUDO_KFUNC_CALL,
					  .imm = (int)kernel_function("bpf_rcu_read_lock")},
					 {.code = BPF_JMP | BPF_CALL,
					  .src_reg = BPF_PSEUDO_KFUNC_CALL,
					  .imm = (int)kernel_function("bpf_rcu_read_unlock")},
					 {.code = BPF_ALU64 | BPF_MOV | BPF_K},
					 {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr attr = {};

	opened(load_insns(&attr, BPF_PROG_TYPE_SCHED_CLS, insns, 4), "functions for BPF");
}

/* The kernel drops what is never reached. */
static void bpf_dead(void)
{
	const struct bpf_insn insns[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K},
					 {.code = BPF_JMP | BPF_JEQ | BPF_K, .off = 2},
					 {.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = 7},
					 {.code = BPF_JMP | BPF_EXIT},
					 {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr attr = {};

	opened(load_insns(&attr, BPF_PROG_TYPE_SCHED_CLS, insns, 5), "BPF");
}

static int bpf_map(uint32_t type, uint32_t key, uint32_t value, uint32_t entries)
{
	union bpf_attr attr = {};
	long fd;

	attr.map_type = type;
	attr.key_size = key;
	attr.value_size = value;
	attr.max_entries = entries;
	fd = bpf(BPF_MAP_CREATE, &attr);
	opened(fd, "such BPF maps");
	return (int)fd;
}

static void bpf_counters(void)
{
	bpf_map(BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 4);
}

static void bpf_bloom(void)
{
	bpf_map(BPF_MAP_TYPE_BLOOM_FILTER, 0, 4, 4);
}

static void bpf_arena(void)
{
	union bpf_attr attr = {};
	volatile char *at;
	long arena;

	attr.map_type = 33; /* BPF_MAP_TYPE_ARENA, 6.9 */
	attr.max_entries = 4;
	attr.map_flags = BPF_F_MMAPABLE;
	arena = bpf(BPF_MAP_CREATE, &attr);
	opened(arena, "arenas of BPF");
	/* it has a page, and is mapped no more */
	at = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, (int)arena, 0);
	CHECK(at != MAP_FAILED);
	*at = 1;
	CHECK(!munmap((void *)at, 4 * 4096));
}

#define BTF_HEADER_OF(data)                                                                   \
	{                                                                                     \
		.magic = BTF_MAGIC, .version = BTF_VERSION, .hdr_len = sizeof((data).header), \
		.type_len = sizeof((data).types), .str_off = sizeof((data).types),            \
		.str_len = sizeof((data).names),                                              \
	}

/* A map whose values belong to objects of that kind, with one for the object of `key`. */
static void storage(uint32_t type, int key)
{
	const struct {
		struct btf_header header;
		uint32_t types[8];
		char names[16];
	} data = {.header = BTF_HEADER_OF(data),
		  .types = {1, BTF_KIND_INT << 24, 4, BTF_INT_SIGNED << 24 | 32, 5,
			    BTF_KIND_INT << 24, 8, 64},
		  .names = "\0int\0u64"};
	union bpf_attr attr = {};
	uint64_t value = 7;
	long types, map;

	attr.btf = (uintptr_t)&data;
	attr.btf_size = sizeof(data);
	types = bpf(BPF_BTF_LOAD, &attr);
	opened(types, "BTF");
	memset(&attr, 0, sizeof(attr));
	attr.map_type = type;
	attr.key_size = 4;
	attr.value_size = 8;
	attr.map_flags = BPF_F_NO_PREALLOC;
	attr.btf_fd = (uint32_t)types;
	attr.btf_key_type_id = 1;
	attr.btf_value_type_id = 2;
	map = bpf(BPF_MAP_CREATE, &attr);
	opened(map, "storage of BPF");
	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)map;
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)&value;
	if (key >= 0)
		CHECK(!bpf(BPF_MAP_UPDATE_ELEM, &attr) && !close(key));
	CHECK(!close((int)types));
}

static void storage_task(void)
{
	storage(BPF_MAP_TYPE_TASK_STORAGE, (int)syscall(SYS_pidfd_open, getppid(), 0));
}

static void storage_file(void)
{
	int fd = open("file", O_RDWR | O_CREAT, 0600);

	/* what is mapped has no descriptor any more */
	CHECK(fd >= 0 && !ftruncate(fd, 4096));
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
	storage(BPF_MAP_TYPE_INODE_STORAGE, fd);
}

static void write_to(const char *directory, const char *text)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", directory);
	fd = open(path, O_WRONLY);
	CHECK(fd >= 0 && write(fd, text, strlen(text)) > 0 && !close(fd));
}

/* One that was removed, but is kept by a socket that was made there. */
static void storage_group(void)
{
	const char *top = access("/sys/fs/cgroup/unified", F_OK) ? "/sys/fs/cgroup"
								 : "/sys/fs/cgroup/unified";
	char group[96];
	struct stat here;
	int fd;

	CHECK(!stat(".", &here)); /* nobody else has its number */
	snprintf(group, sizeof(group), "%s/reprise-value-%ju", top, (uintmax_t)here.st_ino);
	if (!strcmp(top, "/sys/fs/cgroup") || mkdir(group, 0700) < 0)
		test_skip("no control group can be made and left again: %m");
	write_to(group, "0");
	CHECK(socket(AF_INET, SOCK_DGRAM, 0) >= 0);
	fd = open(group, O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0);
	storage(32 /* BPF_MAP_TYPE_CGRP_STORAGE, 6.2 */, fd);
	write_to(top, "0");
	while (rmdir(group) < 0)
		CHECK(errno == EBUSY);
}

/* For a program with that hash alone (6.18). */
static void bpf_exclusive(void)
{
	static const uint8_t hash[32] = {1};
	struct {
		union bpf_attr attr;
		uint64_t room[8];
	} all = {};
	/* behind value_type_btf_obj_fd and map_token_fd, which are not in all headers either */
	uint8_t *more = (uint8_t *)&all + offsetof(union bpf_attr, map_extra) + 16;
	const uint64_t at = (uintptr_t)hash;
	const uint32_t size = sizeof(hash);

	all.attr.map_type = BPF_MAP_TYPE_ARRAY;
	all.attr.key_size = 4;
	all.attr.value_size = 4;
	all.attr.max_entries = 1;
	memcpy(more, &at, sizeof(at));
	memcpy(more + 8, &size, sizeof(size));
	opened(syscall(SYS_bpf, BPF_MAP_CREATE, &all, sizeof(all)), "BPF maps for one program");
}

/* Writes 40 bytes of ones. */
static int ring_writer(int ring)
{
	struct bpf_insn insns[] = {
		{.code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = 10, .off = -40, .imm = -1},
		{.code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = 10, .off = -32, .imm = -1},
		{.code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = 10, .off = -24, .imm = -1},
		{.code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = 10, .off = -16, .imm = -1},
		{.code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = 10, .off = -8, .imm = -1},
		{.code = BPF_LD | BPF_IMM | BPF_DW,
		 .dst_reg = 1,
		 .src_reg = BPF_PSEUDO_MAP_FD,
		 .imm = ring},
		{},
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 2, .src_reg = 10},
		{.code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = 2, .imm = -40},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = 40},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 4},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_ringbuf_output},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K},
		{.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr attr = {};
	long fd;

	attr.prog_flags = BPF_F_SLEEPABLE;
	fd = load_insns(&attr, BPF_PROG_TYPE_SYSCALL, insns, sizeof(insns) / sizeof(insns[0]));
	opened(fd, "programs of BPF that are run");
	return (int)fd;
}

/* A ring that has gone round, and is read from the middle of a message on. */
static void bpf_ring(void)
{
	int ring = bpf_map(BPF_MAP_TYPE_RINGBUF, 0, 0, 4096);
	uint64_t *consumer = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, 0);
	union bpf_attr attr = {};

	CHECK(consumer != MAP_FAILED);
	attr.test.prog_fd = (uint32_t)ring_writer(ring);
	for (int i = 0; i < 100; i++) {
		*consumer = (uint64_t)i * 48;
		CHECK(!bpf(BPF_PROG_TEST_RUN, &attr));
	}
	*consumer += 24;
}

/* In memory, without a descriptor. */
static void bpf_memory(void)
{
	union bpf_attr attr = {};
	long fd;

	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = 4;
	attr.value_size = 8;
	attr.max_entries = 4;
	attr.map_flags = BPF_F_MMAPABLE;
	fd = bpf(BPF_MAP_CREATE, &attr);
	opened(fd, "BPF maps in memory");
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, (int)fd, 0) != MAP_FAILED);
	CHECK(!close((int)fd));
}

/* Its values have a timer: struct outer { struct bpf_timer value; }; */
static void bpf_timers(void)
{
	const struct {
		struct btf_header header;
		uint32_t types[19];
		char names[40];
	} data = {.header = BTF_HEADER_OF(data),
		  /* clang-format off */
		  .types = {1, BTF_KIND_INT << 24, 8, 64,
			    5, BTF_KIND_STRUCT << 24 | 2, 16, 15, 1, 0, 15, 1, 64,
			    21, BTF_KIND_STRUCT << 24 | 1, 16, 15, 2, 0},
		  /* clang-format on */
		  .names = "\0u64\0bpf_timer\0value\0outer"};
	union bpf_attr attr = {};
	long fd;

	attr.btf = (uintptr_t)&data;
	attr.btf_size = sizeof(data);
	fd = bpf(BPF_BTF_LOAD, &attr);
	opened(fd, "BTF");
	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_HASH;
	attr.key_size = 8;
	attr.value_size = 16;
	attr.max_entries = 4;
	attr.btf_fd = (uint32_t)fd;
	attr.btf_key_type_id = 1;
	attr.btf_value_type_id = 3;
	opened(bpf(BPF_MAP_CREATE, &attr), "timers of BPF");
	CHECK(!close((int)fd));
}

static void stats(void)
{
	const union bpf_attr attr = {.enable_stats.type = BPF_STATS_RUN_TIME};

	opened(bpf(BPF_ENABLE_STATS, &attr), "statistics of BPF");
}

static int cancelled_on_set(void)
{
	struct itimerspec its = {.it_value.tv_sec = INT32_MAX};
	int fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);

	CHECK(fd >= 0);
	CHECK(!timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &its, NULL));
	return fd;
}

/* One that looks as if the clock had been set, to who does not see the kernel's memory. */
static void timer_looks_cancelled(void)
{
	uint64_t one = 1;

	CHECK(!ioctl(cancelled_on_set(), TFD_IOC_SET_TICKS, &one));
}

/* The clock of the machine makes a step of a second. */
static void timer_cancelled(void)
{
	int fd = cancelled_on_set();
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct timespec now;

	CHECK(!clock_gettime(CLOCK_REALTIME, &now));
	now.tv_sec++;
	CHECK(!clock_settime(CLOCK_REALTIME, &now));
	CHECK_EQUAL(poll(&p, 1, -1), 1);
}

static const struct {
	const char *name;
	void (*make)(void);
} kinds[] = {{"landlock", landlock},
	     {"notify", notify},
	     {"perf", perf},
	     {"pidfd", pidfd},
	     {"link", bpf_link},
	     {"btf", btf},
	     {"attach", bpf_attach},
	     {"kfunc", bpf_kfunc},
	     {"dead", bpf_dead},
	     {"counters", bpf_counters},
	     {"bloom", bpf_bloom},
	     {"exclusive", bpf_exclusive},
	     {"arena", bpf_arena},
	     {"storage-task", storage_task},
	     {"storage-file", storage_file},
	     {"storage-group", storage_group},
	     {"ring", bpf_ring},
	     {"timers", bpf_timers},
	     {"memory", bpf_memory},
	     {"stats", stats},
	     {"timer-looks", timer_looks_cancelled},
	     {"timer", timer_cancelled}};

int main(int argc, char **argv)
{
	test_init();
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i].name, argv[1]))
			kinds[i].make();
	test_wait();
	test_pass();
}
