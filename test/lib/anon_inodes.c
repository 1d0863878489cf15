/* SPDX-License-Identifier: Apache-2.0 */
/* A program with a descriptor of a kind of its own of the kernel, which cannot be saved: its
 * argument says which. */
#include "harness.h"

#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
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

static void btf(void)
{
	/* one type, int, of 4 bytes */
	const struct {
		struct btf_header header;
		struct btf_type type;
		uint32_t encoding;
		char names[5];
	} data = {.header = {.magic = BTF_MAGIC,
			     .version = BTF_VERSION,
			     .hdr_len = sizeof(data.header),
			     .type_len = sizeof(data.type) + sizeof(data.encoding),
			     .str_off = sizeof(data.type) + sizeof(data.encoding),
			     .str_len = sizeof(data.names)},
		  .type = {.name_off = 1, .info = BTF_KIND_INT << 24, .size = 4},
		  .encoding = 32,
		  .names = "\0int"};
	union bpf_attr attr = {};

	attr.btf = (uintptr_t)&data;
	attr.btf_size = offsetof(__typeof__(data), names) + sizeof(data.names);
	opened(bpf(BPF_BTF_LOAD, &attr), "BTF");
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
	     {"link", bpf_link},
	     {"btf", btf},
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
