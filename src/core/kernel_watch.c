/* SPDX-License-Identifier: Apache-2.0 */
#include "core/kernel_watch.h"

#include <asm/unistd.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"
#include "core/vec.h"

struct kernel_watch {
	/* a hash: addresses of struct inode, how often; and of struct mm_struct, numbers of
	 * segments, ends of mappings */
	int watched;
	int counter;	/* an array with one number, */
	uint64_t *seen; /* which is mapped here */
	int programs[2], links[2];
};

/* ---- programs ---- */

enum target {
	COUNT,
	LEAVE,
	FIRST, /* argument: a descriptor */
	FIRST_32,
	THIRD,
	SHARED_MAP,
	SECOND_MAP,
	ADVICE,
	PROCESS_ADVICE,
	SEGMENT, /* argument: its number */
	SEGMENT_32,
	SEGMENT_IPC,
	SEGMENT_OF, /* R8, its number */
	OWN,	    /* of an address space that is watched */
	COMPAT,
	FILE_OF, /* R8, a descriptor of the task */
	TARGETS
};

struct program {
	VEC(struct bpf_insn) insns;
	struct {
		size_t at;
		enum target to;
	} jumps[96];
	size_t n;
	size_t places[TARGETS];
	int failed;
};

static void emit(struct program *p, struct bpf_insn insn)
{
	struct bpf_insn *at = vec_push(&p->insns);

	if (at)
		*at = insn;
	else
		p->failed = -ENOMEM;
}

static void jump(struct program *p, uint8_t condition, uint8_t reg, int value, enum target to)
{
	if (p->n == sizeof(p->jumps) / sizeof(p->jumps[0])) {
		p->failed = -E2BIG;
		return;
	}
	p->jumps[p->n].at = p->insns.n;
	p->jumps[p->n++].to = to;
	emit(p, INSN(BPF_JMP | condition | BPF_K, reg, 0, 0, value));
}

static void place(struct program *p, enum target here)
{
	p->places[here] = p->insns.n;
}

/* R3 = *(R3 + offset), by way of the stack; zero where nothing is, or if the kernel has no such
 * member. */
static void follow(struct program *p, int offset)
{
	if (offset < 0)
		p->failed = offset;
	emit(p, ADD(BPF_REG_3, offset));
	emit(p, MOVE(BPF_REG_1, BPF_REG_10));
	emit(p, ADD(BPF_REG_1, -8));
	emit(p, SET(BPF_REG_2, 8));
	emit(p, CALL(BPF_FUNC_probe_read_kernel));
	emit(p, LOAD(BPF_REG_3, BPF_REG_10, -8));
}

/* A map, and a key that stands on the stack, as arguments. */
static void emit_map(struct program *p, int map, int at)
{
	emit(p, INSN(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map));
	emit(p, INSN(0, 0, 0, 0, 0));
	emit(p, MOVE(BPF_REG_2, BPF_REG_10));
	emit(p, ADD(BPF_REG_2, at));
}

/* R0 = the element of a map. */
static void look_up(struct program *p, int map, int at)
{
	emit_map(p, map, at);
	emit(p, CALL(BPF_FUNC_map_lookup_elem));
}

/* In the element of a map that R0 points to. */
static void count(struct program *p)
{
	emit(p, SET(BPF_REG_1, 1));
	emit(p, INSN(BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_0, BPF_REG_1, 0, BPF_ADD));
}

static int finish(struct program *p, const struct kernel_watch *w)
{
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT,
		.license = kernel_bpf_pointer("Dual MIT/GPL"), /* see kernel_memory.c */
	};
	int r;

	place(p, COUNT);
	emit(p, INSN(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -12, 0));
	look_up(p, w->counter, -12);
	jump(p, BPF_JEQ, BPF_REG_0, 0, LEAVE);
	count(p);
	place(p, LEAVE);
	emit(p, SET(BPF_REG_0, 0));
	emit(p, INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
	for (size_t i = 0; !p->failed && i < p->n; i++)
		p->insns.v[p->jumps[i].at].off =
			(int16_t)(p->places[p->jumps[i].to] - p->jumps[i].at - 1);
	attr.insns = kernel_bpf_pointer(p->insns.v);
	attr.insn_cnt = (uint32_t)p->insns.n;
	r = p->failed ? p->failed : kernel_bpf(BPF_PROG_LOAD, &attr);
	vec_free(&p->insns);
	return r;
}

/*
 * sched_process_fork(parent, child): the child has its memory, and has not run. Threads and
 * children of vfork() have the same memory. That of others is watched from now on.
 */
static int load_fork(const struct kernel_watch *w, struct kernel_memory *k)
{
	int mm = kernel_offset(k, "task_struct", "mm");
	struct program p = {};

	emit(&p, LOAD(BPF_REG_6, BPF_REG_1, 0));
	emit(&p, LOAD(BPF_REG_3, BPF_REG_1, 8));
	follow(&p, mm);
	emit(&p, MOVE(BPF_REG_7, BPF_REG_3));
	emit(&p, STORE(BPF_REG_10, -16, BPF_REG_3));
	emit(&p, MOVE(BPF_REG_3, BPF_REG_6));
	follow(&p, mm);
	emit(&p, INSN(BPF_ALU64 | BPF_SUB | BPF_X, BPF_REG_7, BPF_REG_3, 0, 0));
	jump(&p, BPF_JEQ, BPF_REG_7, 0, LEAVE);
	look_up(&p, w->watched, -8);
	jump(&p, BPF_JEQ, BPF_REG_0, 0, LEAVE);
	emit(&p, INSN(BPF_ST | BPF_MEM | BPF_DW, BPF_REG_10, 0, -8, 0));
	emit_map(&p, w->watched, -16);
	emit(&p, MOVE(BPF_REG_3, BPF_REG_10));
	emit(&p, ADD(BPF_REG_3, -8));
	emit(&p, SET(BPF_REG_4, BPF_NOEXIST));
	emit(&p, CALL(BPF_FUNC_map_update_elem));
	return finish(&p, w);
}

/* R3 = an argument of the system call, or another register. */
static void registers(struct program *p, struct kernel_memory *k, const char *name)
{
	emit(p, MOVE(BPF_REG_3, BPF_REG_6));
	follow(p, kernel_offset(k, "pt_regs", name));
}

/* R8: a descriptor of the task. If its file is watched, that is counted. */
static void emit_file(struct program *p, const struct kernel_watch *w, struct kernel_memory *k)
{
	place(p, FILE_OF);
	emit(p, INSN(BPF_ALU | BPF_MOV | BPF_X, BPF_REG_8, BPF_REG_8, 0, 0)); /* as an int */
	emit(p, CALL(BPF_FUNC_get_current_task));
	emit(p, MOVE(BPF_REG_3, BPF_REG_0));
	follow(p, kernel_offset(k, "task_struct", "files"));
	follow(p, kernel_offset(k, "files_struct", "fdt"));
	emit(p, MOVE(BPF_REG_9, BPF_REG_3));
	follow(p, kernel_offset(k, "fdtable", "max_fds")); /* an unsigned int */
	emit(p, INSN(BPF_ALU | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_3, 0, 0));
	emit(p, MOVE(BPF_REG_1, BPF_REG_8));
	emit(p, INSN(BPF_ALU64 | BPF_SUB | BPF_X, BPF_REG_1, BPF_REG_3, 0, 0));
	jump(p, BPF_JSGE, BPF_REG_1, 0, LEAVE);
	emit(p, MOVE(BPF_REG_3, BPF_REG_9));
	follow(p, kernel_offset(k, "fdtable", "fd"));
	emit(p, INSN(BPF_ALU64 | BPF_LSH | BPF_K, BPF_REG_8, 0, 0, 3));
	emit(p, INSN(BPF_ALU64 | BPF_ADD | BPF_X, BPF_REG_3, BPF_REG_8, 0, 0));
	follow(p, 0);
	follow(p, kernel_offset(k, "file", "f_inode"));
	look_up(p, w->watched, -8);
	jump(p, BPF_JEQ, BPF_REG_0, 0, LEAVE);
	count(p);
	jump(p, BPF_JA, 0, 0, LEAVE);
}

static void load_r8(struct program *p, struct kernel_memory *k, const char *name)
{
	registers(p, k, name);
	emit(p, MOVE(BPF_REG_8, BPF_REG_3));
}

/* A target that puts a register into R8 for another one. */
static void emit_argument(struct program *p, struct kernel_memory *k, enum target here,
			  const char *name, enum target to)
{
	place(p, here);
	load_r8(p, k, name);
	jump(p, BPF_JA, 0, 0, to);
}

/* Is what stands on the stack watched? */
static void emit_watched(struct program *p, const struct kernel_watch *w, enum target yes)
{
	look_up(p, w->watched, -8);
	jump(p, BPF_JNE, BPF_REG_0, 0, yes);
	jump(p, BPF_JA, 0, 0, LEAVE);
}

struct watched_call {
	int call;
	enum target to;
};

/* What writes to a descriptor, makes a mapping, or could do such a thing unseen. */
static const struct watched_call calls[] = {
	{__NR_write, FIRST},
	{__NR_pwrite64, FIRST},
	{__NR_writev, FIRST},
	{__NR_pwritev, FIRST},
	{__NR_pwritev2, FIRST},
	{__NR_sendfile, FIRST},
	{__NR_fallocate, FIRST},
	{__NR_ftruncate, FIRST},
	{__NR_ioctl, FIRST}, /* fallocate() in an older form (file_ioctl()) */
	{__NR_splice, THIRD},
	{__NR_copy_file_range, THIRD},
	{__NR_mmap, SHARED_MAP},
	{__NR_mremap, SECOND_MAP},
	{__NR_madvise, ADVICE},
	{__NR_process_madvise, PROCESS_ADVICE},
	{__NR_shmat, SEGMENT},
	{__NR_remap_file_pages, OWN},
	{__NR_truncate, COUNT},
	{__NR_io_setup, OWN},
	{__NR_io_uring_setup, OWN},
	/* writev, pwritev, pwritev2, ioctl and io_setup of x32 */
	{516, FIRST},
	{535, FIRST},
	{547, FIRST},
	{514, FIRST},
	{543, OWN},
};

/* The same of 32-bit code: not all are looked at so closely. */
static const struct watched_call compat_calls[] = {
	{4, FIRST_32},	 {181, FIRST_32}, {146, FIRST_32}, {334, FIRST_32},    {379, FIRST_32},
	{187, FIRST_32}, {239, FIRST_32}, {324, FIRST_32}, {93, FIRST_32},     {194, FIRST_32},
	{54, FIRST_32},	 {313, THIRD},	  {377, THIRD},	   {192, FIRST},       {90, COUNT},
	{163, OWN},	 {219, OWN},	  {257, OWN},	   {117, SEGMENT_IPC}, {397, SEGMENT_32},
	{92, COUNT},	 {193, COUNT},	  {245, OWN},	   {425, OWN},	       {440, OWN},
};

static void dispatch(struct program *p, const struct watched_call *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		jump(p, BPF_JEQ, BPF_REG_7, list[i].call, list[i].to);
	jump(p, BPF_JA, 0, 0, LEAVE);
}

/*
 * mremap(): the old length 0, and MREMAP_DONTUNMAP, make a second mapping. One that gets longer may
 * do so where it is, and what is new of it bears no marks; if it gets shorter again nothing is left
 * to be seen. Others are moved, which is seen.
 */
static void emit_remap(struct program *p, const struct kernel_watch *w, struct kernel_memory *k)
{
	place(p, SECOND_MAP);
	registers(p, k, "si"); /* the old length */
	jump(p, BPF_JEQ, BPF_REG_3, 0, OWN);
	emit(p, MOVE(BPF_REG_8, BPF_REG_3));
	registers(p, k, "r10");
	jump(p, BPF_JSET, BPF_REG_3, MREMAP_DONTUNMAP, OWN);
	registers(p, k, "di");
	emit(p, INSN(BPF_ALU64 | BPF_ADD | BPF_X, BPF_REG_8, BPF_REG_3, 0, 0));
	emit(p, ADD(BPF_REG_8, 4095));
	emit(p, INSN(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_8, 0, 0, -4096));
	emit(p, STORE(BPF_REG_10, -8, BPF_REG_8));
	emit_watched(p, w, OWN);
}

static void emit_targets(struct program *p, const struct kernel_watch *w, struct kernel_memory *k)
{
	emit_argument(p, k, FIRST, "di", FILE_OF);
	emit_argument(p, k, FIRST_32, "bx", FILE_OF);
	emit_argument(p, k, THIRD, "dx", FILE_OF);
	emit_remap(p, w, k);
	place(p, ADVICE);
	registers(p, k, "dx");
	jump(p, BPF_JEQ, BPF_REG_3, MADV_REMOVE, OWN);
	jump(p, BPF_JA, 0, 0, LEAVE);
	place(p, PROCESS_ADVICE);
	registers(p, k, "r10");
	jump(p, BPF_JNE, BPF_REG_3, MADV_REMOVE, LEAVE);
	place(p, OWN);
	emit(p, CALL(BPF_FUNC_get_current_task));
	emit(p, MOVE(BPF_REG_3, BPF_REG_0));
	follow(p, kernel_offset(k, "task_struct", "mm"));
	emit_watched(p, w, COUNT);
	place(p, SEGMENT_IPC);
	registers(p, k, "bx");
	emit(p, INSN(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_3, 0, 0, 0xffff));
	jump(p, BPF_JNE, BPF_REG_3, 21, LEAVE); /* SHMAT */
	load_r8(p, k, "cx");
	jump(p, BPF_JA, 0, 0, SEGMENT_OF);
	emit_argument(p, k, SEGMENT_32, "bx", SEGMENT_OF);
	emit_argument(p, k, SEGMENT, "di", SEGMENT_OF);
	place(p, SEGMENT_OF); /* an int */
	emit(p, INSN(BPF_ALU | BPF_MOV | BPF_X, BPF_REG_8, BPF_REG_8, 0, 0));
	emit(p, STORE(BPF_REG_10, -8, BPF_REG_8));
	emit_watched(p, w, COUNT);
	place(p, SHARED_MAP);
	registers(p, k, "r10");
	emit(p, INSN(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_3, 0, 0, MAP_SHARED | MAP_ANONYMOUS));
	jump(p, BPF_JNE, BPF_REG_3, MAP_SHARED, LEAVE);
	load_r8(p, k, "r8");
	/* and on to FILE_OF */
}

/* thread_info.status: the call came by an entry for 32-bit programs, of whatever code. */
#define TS_COMPAT      2
#define COUNT_OF(list) (sizeof(list) / sizeof((list)[0]))

/* sys_enter(registers, number) */
static int load_calls(const struct kernel_watch *w, struct kernel_memory *k)
{
	struct program p = {};

	emit(&p, LOAD(BPF_REG_6, BPF_REG_1, 0));
	emit(&p, LOAD(BPF_REG_7, BPF_REG_1, 8));
	emit(&p, INSN(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_7, 0, 0, ~__X32_SYSCALL_BIT));
	emit(&p, CALL(BPF_FUNC_get_current_task));
	emit(&p, MOVE(BPF_REG_3, BPF_REG_0));
	follow(&p, kernel_offset(k, "task_struct", "thread_info.status"));
	jump(&p, BPF_JSET, BPF_REG_3, TS_COMPAT, COMPAT);
	dispatch(&p, calls, COUNT_OF(calls));
	place(&p, COMPAT);
	dispatch(&p, compat_calls, COUNT_OF(compat_calls));
	emit_targets(&p, w, k);
	emit_file(&p, w, k);
	return finish(&p, w);
}

static int attach(int program, const char *tracepoint)
{
	union bpf_attr attr = {.raw_tracepoint = {.name = kernel_bpf_pointer(tracepoint),
						  .prog_fd = (uint32_t)program}};

	return kernel_bpf(BPF_RAW_TRACEPOINT_OPEN, &attr);
}

/* ---- for others ---- */

static int make_maps(struct kernel_watch *w, unsigned int room)
{
	union bpf_attr watched = {
		.map_type = BPF_MAP_TYPE_HASH, .key_size = 8, .value_size = 8, .max_entries = room};
	union bpf_attr counter = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = 4,
		.value_size = 8,
		.max_entries = 1,
		.map_flags = BPF_F_MMAPABLE,
	};
	void *at;

	w->watched = kernel_bpf(BPF_MAP_CREATE, &watched);
	if (w->watched < 0)
		return w->watched;
	w->counter = kernel_bpf(BPF_MAP_CREATE, &counter);
	if (w->counter < 0)
		return w->counter;
	at = mmap(NULL, sizeof(*w->seen), PROT_READ, MAP_SHARED, w->counter, 0);
	if (at == MAP_FAILED)
		return -errno;
	w->seen = at;
	return 0;
}

static int start(struct kernel_watch *w, struct kernel_memory *k, unsigned int room)
{
	static const char *const tracepoints[] = {"sched_process_fork", "sys_enter"};
	int r = make_maps(w, room);

	for (int i = 0; r >= 0 && i < 2; i++) {
		r = w->programs[i] = i == 0 ? load_fork(w, k) : load_calls(w, k);
		if (r >= 0)
			r = w->links[i] = attach(w->programs[i], tracepoints[i]);
	}
	return r;
}

int kernel_watch_new(struct kernel_watch **ret, struct kernel_memory *k, unsigned int room,
		     struct error *e)
{
	struct kernel_watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a BPF program");
	w->watched = w->counter = -EBADF;
	for (int i = 0; i < 2; i++)
		w->programs[i] = w->links[i] = -EBADF;
	r = start(w, k, room);
	if (r < 0) {
		kernel_watch_free(w);
		return error_errno(e, r, r == -EPERM ? E_PERMISSION : E_KERNEL_TOO_OLD,
				   "who maps a file cannot be watched (BPF)");
	}
	*ret = w;
	return 0;
}

void kernel_watch_free(struct kernel_watch *w)
{
	if (!w)
		return;
	for (int i = 0; i < 2; i++) {
		close_fd(&w->links[i]);
		close_fd(&w->programs[i]);
	}
	if (w->seen)
		munmap(w->seen, sizeof(*w->seen));
	close_fd(&w->counter);
	close_fd(&w->watched);
	free(w);
}

static int add(struct kernel_watch *w, uint64_t address)
{
	const uint64_t none = 0;
	union bpf_attr attr = {
		.map_fd = (uint32_t)w->watched,
		.key = kernel_bpf_pointer(&address),
		.value = kernel_bpf_pointer(&none),
		.flags = BPF_NOEXIST,
	};
	int r = kernel_bpf(BPF_MAP_UPDATE_ELEM, &attr);

	return r == -EEXIST ? 0 : r;
}

static int inode_of(struct kernel_memory *k, int fd, uint64_t *ret)
{
	uint64_t file;
	int r = kernel_file(k, fd, &file);

	return r < 0 ? r : kernel_member(k, file, "file", "f_inode", ret, sizeof(*ret));
}

int kernel_watch_file(struct kernel_watch *w, struct kernel_memory *k, int fd, uint64_t *ret)
{
	uint64_t inode;
	int r = inode_of(k, fd, &inode);

	if (r >= 0)
		r = add(w, inode);
	if (r >= 0)
		*ret = inode;
	return r;
}

/* Addresses of the kernel are larger than any such number. */
int kernel_watch_segment(struct kernel_watch *w, int id)
{
	return add(w, (uint32_t)id);
}

/* Lower than any address of the kernel, too. A number that stands for something else as well counts
 * more than it should. */
int kernel_watch_mapping(struct kernel_watch *w, uint64_t end)
{
	return add(w, end);
}

int kernel_watch_space(struct kernel_watch *w, struct kernel_memory *k, pid_t tid)
{
	uint64_t task, mm;
	int r = kernel_task(k, tid, &task);

	if (r >= 0)
		r = kernel_member(k, task, "task_struct", "mm", &mm, sizeof(mm));
	return r < 0 ? r : mm ? add(w, mm) : -ESRCH;
}

int kernel_watch_count(const struct kernel_watch *w, uint64_t file, uint64_t *ret)
{
	uint64_t n = 0;
	union bpf_attr attr = {
		.map_fd = (uint32_t)w->watched,
		.key = kernel_bpf_pointer(&file),
		.value = kernel_bpf_pointer(&n),
	};
	int r = kernel_bpf(BPF_MAP_LOOKUP_ELEM, &attr);

	*ret = n + __atomic_load_n(w->seen, __ATOMIC_ACQUIRE);
	return r;
}

int kernel_writable_mappings(struct kernel_memory *k, int fd, int *ret)
{
	uint64_t at;
	int r = inode_of(k, fd, &at);

	if (r >= 0)
		r = kernel_member(k, at, "inode", "i_mapping", &at, sizeof(at));
	return r < 0 ? r
		     : kernel_member(k, at, "address_space", "i_mmap_writable", ret, sizeof(*ret));
}
