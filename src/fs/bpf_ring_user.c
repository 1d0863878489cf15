/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings that BPF programs read from. A process writes all of it but for how far the kernel has
 * read: that is moved by messages that count as discarded, which the kernel passes over when a
 * program asks for some (__bpf_user_ringbuf_peek()).
 */
#include <errno.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"
#include "fs/bpf_map.h"
#include "fs/bpf_rewrite.h"
#include "fs/bpf_ring.h"
#include "fs/bpf_types.h"

#define MOVE_MAX  (8u << 20) /* less than DYNPTR_MAX_SIZE */
#define MOVES_MAX (1u << 28) /* some 5 ns each */

static uint32_t longest_move(uint32_t size)
{
	return size < MOVE_MAX ? size : MOVE_MAX;
}

bool bpf_ring_user_valid(const struct bpf_ring *r)
{
	return *ring_consumer(r) % 8 == 0 && *ring_consumer(r) / longest_move(r->size) <= MOVES_MAX;
}

/* Functions whose address is taken need types: of the program, and of what it calls for each. */
static int load_types(void)
{
	enum { INT = 1, POINTER, OF_ONE, OF_TWO };
	static const struct {
		struct btf_header h;
		uint32_t types[25];
		char names[16];
	} all = {.h = {.magic = BTF_MAGIC,
		       .version = BTF_VERSION,
		       .hdr_len = sizeof(all.h),
		       .type_len = sizeof(all.types),
		       .str_off = sizeof(all.types),
		       .str_len = sizeof(all.names)},
		 /* clang-format off */
		 .types = {1, BTF_KIND_INT << 24, 4, BTF_INT_SIGNED << 24 | 32,
			   0, BTF_KIND_PTR << 24, 0,
			   0, BTF_KIND_FUNC_PROTO << 24 | 1, INT, 1, POINTER,
			   0, BTF_KIND_FUNC_PROTO << 24 | 2, INT, 1, POINTER, 1, POINTER,
			   5, BTF_KIND_FUNC << 24, OF_ONE,
			   9, BTF_KIND_FUNC << 24, OF_TWO},
		 /* clang-format on */
		 .names = "\0int\0all\0one"};

	return bpf_types_load(&all, sizeof(all));
}

static int load_reader(int ring)
{
	enum { ALL = 5, ONE, AT_ONE = 8 };
	const struct bpf_insn insns[] = {
		INSN(BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, ring),
		INSN(0, 0, 0, 0, 0),
		INSN(BPF_LD | BPF_IMM | BPF_DW, 2, BPF_PSEUDO_FUNC, 0, AT_ONE - 3),
		INSN(0, 0, 0, 0, 0),
		SET(3, 0),
		SET(4, BPF_RB_NO_WAKEUP),
		CALL(BPF_FUNC_user_ringbuf_drain),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
		SET(0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	struct bpf_func_info functions[] = {{0, ALL}, {AT_ONE, ONE}};
	_cleanup_(close_fd) int types = load_types();
	const struct bpf_debug debug = {.types = types, .functions = functions, .nfunctions = 2};
	const struct bpf_source what = {
		.type = BPF_PROG_TYPE_SYSCALL, .flags = BPF_F_SLEEPABLE, .gpl = true};

	return types < 0 ? types
			 : bpf_program_load(&what, insns, sizeof(insns) / sizeof(insns[0]), &debug);
}

static void discard(const struct bpf_ring *r, uint64_t at, uint64_t bytes)
{
	*ring_header(r, at) = (uint32_t)(bytes - RING_HEADER) | BPF_RINGBUF_DISCARD_BIT;
}

/* A program passes over some at a time (BPF_MAX_USER_RINGBUF_SAMPLES). */
static int read_to(const struct bpf_ring *r, uint64_t to, int program)
{
	uint64_t is, before;
	int res;

	__atomic_store_n(ring_producer(r), to, __ATOMIC_RELEASE);
	is = __atomic_load_n(ring_consumer(r), __ATOMIC_ACQUIRE);
	do {
		before = is;
		res = bpf_ring_run(program, NULL, 0);
		is = __atomic_load_n(ring_consumer(r), __ATOMIC_ACQUIRE);
	} while (res >= 0 && is != to && is != before);
	return res >= 0 && is != to ? -EIO : res;
}

static int move(const struct bpf_ring *r, uint64_t to, int program)
{
	uint32_t n = longest_move(r->size), rest = (uint32_t)(to % n);
	int res;

	for (uint32_t at = 0; at < r->size; at += n)
		discard(r, at, n);
	res = read_to(r, to - rest, program);
	if (!rest || res < 0)
		return res;
	discard(r, to - rest, rest);
	return read_to(r, to, program);
}

int bpf_ring_user_fill(int fd, const struct bpf_ring *from)
{
	size_t size = RING_PAGE + (size_t)from->size;
	_cleanup_(close_fd) int program = load_reader(fd);
	struct bpf_ring r = {.size = from->size};
	int res = -ENOMEM;

	if (program < 0)
		return program;
	/* One may be written, the other not: side by side, as they are. */
	r.at = mmap(NULL, RING_PAGE + size, PROT_READ, MAP_SHARED, fd, 0);
	if (r.at == MAP_FAILED)
		return -ENOMEM;
	if (mmap(r.at + RING_PAGE, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		 RING_PAGE) != MAP_FAILED) {
		res = move(&r, *ring_consumer(from), program);
		if (res >= 0)
			memcpy(r.at + RING_PAGE, from->at + RING_PAGE, size);
	}
	munmap(r.at, RING_PAGE + size);
	return res;
}
