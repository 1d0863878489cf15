/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A BPF program that is run by reading an iterator over the one task of its
 * link (kernel/bpf/task_iter.c). It tells the address of that task, and copies
 * what we ask for into an array that is mapped here.
 */
#include "core/kernel_memory.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/clocks.h"
#include "core/kernel_bpf.h"
#include "core/kernel_types.h"

#define COPY_MAX  4096
#define STEPS_MAX 12

/* The one element of the array. Pointers are followed `steps` times. 0 as length: only the task is
 * asked for. */
struct window {
	uint64_t task;
	uint64_t address;
	uint64_t steps, offsets[STEPS_MAX], last;
	uint64_t length;
	int64_t result;
	uint8_t data[COPY_MAX];
};

struct kernel_memory {
	struct kernel_types types;
	int iterator; /* the type of its function */
	struct window *window;
	int map, program, own; /* own: a link to a thread of ours */
	int mappings;	       /* another program: see kernel_bpf_kept() */
	pid_t owner;	       /* which, and its struct task_struct; 0 not asked for yet */
	uint64_t owner_task;
	struct clock_offsets clocks; /* ours */
};

#define LOAD_TRIES 100

/* do_check() of the verifier gives up where a signal, or work for the task, is pending. */
int kernel_bpf(int command, union bpf_attr *attr)
{
	int tries = command == BPF_PROG_LOAD ? LOAD_TRIES : 1;
	long r;

	do
		r = syscall(SYS_bpf, command, attr, sizeof(*attr));
	while (r < 0 && errno == EAGAIN && --tries > 0);
	return r < 0 ? -errno : (int)r;
}

#define MEMBER(m) ((int16_t)offsetof(struct window, m))

#define NOTE_STEP (-16) /* on the stack of the program */

struct program {
	struct bpf_insn insns[32 + 9 * STEPS_MAX];
	size_t n, ends[8], nends;
};

static void emit(struct program *p, struct bpf_insn insn)
{
	p->insns[p->n++] = insn;
}

/* A jump to the end, which is not known yet. */
static void emit_end(struct program *p, struct bpf_insn jump)
{
	p->ends[p->nends++] = p->n;
	emit(p, jump);
}

static void emit_window(struct program *p, int map)
{
	emit(p, INSN(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0));
	emit(p, INSN(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map));
	emit(p, INSN(0, 0, 0, 0, 0));
	emit(p, MOVE(BPF_REG_2, BPF_REG_10));
	emit(p, ADD(BPF_REG_2, -4));
	emit(p, CALL(BPF_FUNC_map_lookup_elem));
	emit_end(p, IF_ZERO(BPF_REG_0, 0));
	emit(p, MOVE(BPF_REG_8, BPF_REG_0));
}

/* R3: an address, and then what stands at an offset from it. Where it cannot be read that is 0
 * (bpf_probe_read_kernel()), and nothing is at low addresses. */
static void emit_steps(struct program *p)
{
	for (int i = 0; i < STEPS_MAX; i++) {
		emit(p, LOAD(BPF_REG_4, BPF_REG_8, MEMBER(steps)));
		emit(p, INSN(BPF_JMP | BPF_JLE | BPF_K, BPF_REG_4, 0,
			     (int16_t)(9 * (STEPS_MAX - i) - 2), i));
		emit(p, LOAD(BPF_REG_4, BPF_REG_8, (int16_t)(MEMBER(offsets) + 8 * i)));
		emit(p, INSN(BPF_ALU64 | BPF_ADD | BPF_X, BPF_REG_3, BPF_REG_4, 0, 0));
		emit(p, MOVE(BPF_REG_1, BPF_REG_10));
		emit(p, ADD(BPF_REG_1, NOTE_STEP));
		emit(p, SET(BPF_REG_2, 8));
		emit(p, CALL(BPF_FUNC_probe_read_kernel));
		emit(p, LOAD(BPF_REG_3, BPF_REG_10, NOTE_STEP));
	}
}

/*
 * These instructions may be used under the GPL, version 2, as well: the kernel gives
 * the helper that reads its memory to programs which say so.
 */
static int load_program(struct kernel_memory *k)
{
	struct program p = {};

	emit(&p, LOAD(BPF_REG_7, BPF_REG_1, 8)); /* struct bpf_iter__task: meta, task */
	emit_end(&p, IF_ZERO(BPF_REG_7, 0));	 /* called once more at the end */
	emit_window(&p, k->map);
	emit(&p, STORE(BPF_REG_8, MEMBER(task), BPF_REG_7));
	emit(&p, LOAD(BPF_REG_2, BPF_REG_8, MEMBER(length)));
	emit_end(&p, IF_ZERO(BPF_REG_2, 0));
	emit(&p, LOAD(BPF_REG_3, BPF_REG_8, MEMBER(address)));
	emit_steps(&p);
	emit(&p, LOAD(BPF_REG_4, BPF_REG_8, MEMBER(last)));
	emit(&p, INSN(BPF_ALU64 | BPF_ADD | BPF_X, BPF_REG_3, BPF_REG_4, 0, 0));
	emit(&p, LOAD(BPF_REG_2, BPF_REG_8, MEMBER(length)));
	emit_end(&p, IF_ABOVE(BPF_REG_2, COPY_MAX, 0));
	emit_end(&p, IF_ZERO(BPF_REG_2, 0));
	emit(&p, MOVE(BPF_REG_1, BPF_REG_8));
	emit(&p, ADD(BPF_REG_1, MEMBER(data)));
	emit(&p, CALL(BPF_FUNC_probe_read_kernel));
	emit(&p, STORE(BPF_REG_8, MEMBER(result), BPF_REG_0));
	for (size_t i = 0; i < p.nends; i++)
		p.insns[p.ends[i]].off = (int16_t)(p.n - p.ends[i] - 1);
	emit(&p, SET(BPF_REG_0, 0));
	emit(&p, INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
	return kernel_bpf_load(k, KERNEL_TASKS, p.insns, p.n);
}

int *kernel_bpf_kept(struct kernel_memory *k)
{
	return &k->mappings;
}

int kernel_bpf_load(struct kernel_memory *k, enum kernel_iterator over,
		    const struct bpf_insn *insns, size_t n)
{
	const char *name = over == KERNEL_FILES ? "bpf_iter_task_file" : "bpf_iter_task_vma";
	int type = over == KERNEL_TASKS ? k->iterator : btf_function(k->types.btf, name);
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_TRACING,
		.expected_attach_type = BPF_TRACE_ITER,
		.attach_btf_id = (uint32_t)type,
		.insns = kernel_bpf_pointer(insns),
		.insn_cnt = (uint32_t)n,
		.license = kernel_bpf_pointer("Dual MIT/GPL"),
	};

	return type < 0 ? -EOPNOTSUPP : kernel_bpf(BPF_PROG_LOAD, &attr);
}

int kernel_bpf_link(int program, pid_t pid, pid_t tid)
{
	union bpf_iter_link_info info = {.task = {.tid = (uint32_t)tid, .pid = (uint32_t)pid}};
	union bpf_attr attr = {
		.link_create = {.prog_fd = (uint32_t)program,
				.attach_type = BPF_TRACE_ITER,
				.iter_info = kernel_bpf_pointer(&info),
				.iter_info_len = sizeof(info)},
	};

	return kernel_bpf(BPF_LINK_CREATE, &attr);
}

int kernel_bpf_iterate(int link)
{
	union bpf_attr attr = {.iter_create = {.link_fd = (uint32_t)link}};

	return kernel_bpf(BPF_ITER_CREATE, &attr);
}

/* Runs the program once. */
static int run(struct kernel_memory *k, int link)
{
	_cleanup_(close_fd) int fd = kernel_bpf_iterate(link);
	char unused[8];

	if (fd < 0)
		return fd;
	k->window->task = 0;
	k->window->result = -ENODATA;
	if (read(fd, unused, sizeof(unused)) < 0)
		return -errno;
	return k->window->task ? 0 : -ESRCH;
}

static int open_window(struct kernel_memory *k)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = 4,
		.value_size = sizeof(struct window),
		.max_entries = 1,
		.map_flags = BPF_F_MMAPABLE,
	};
	void *at;

	k->map = kernel_bpf(BPF_MAP_CREATE, &attr);
	if (k->map < 0)
		return k->map;
	at = mmap(NULL, sizeof(struct window), PROT_READ | PROT_WRITE, MAP_SHARED, k->map, 0);
	if (at == MAP_FAILED)
		return -errno;
	k->window = at;
	return 0;
}

static int open_all(struct kernel_memory *k)
{
	int r = open_window(k);

	if (r >= 0)
		r = kernel_types_open(&k->types);
	if (r < 0)
		return r;
	k->iterator = btf_function(k->types.btf, "bpf_iter_task");
	if (k->iterator < 0)
		return -EOPNOTSUPP;
	k->program = load_program(k);
	if (k->program < 0)
		return k->program;
	k->own = kernel_bpf_link(k->program, 0, (pid_t)syscall(SYS_gettid));
	if (k->own < 0)
		return k->own;
	/* Before 6.1 the filter was not known, and the address would be that of any task. */
	r = run(k, k->own);
	return r < 0 ? r : kernel_offset(k, "task_struct", "pid");
}

uint64_t kernel_clock_ns(const struct kernel_memory *k, clockid_t clock)
{
	return clock_machine_ns(&k->clocks, clock);
}

int kernel_memory_open(int proc_fd, struct kernel_memory **ret, struct error *e)
{
	struct kernel_memory *k = calloc(1, sizeof(*k));
	const char *fault = getenv("REPRISE_FAULT");
	struct error unused = {};
	int r;

	if (!k)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a BPF program");
	k->map = k->program = k->own = k->mappings = -EBADF;
	/* the fault point shows what happens where we may not look */
	r = fault && !strcmp(fault, "no-kernel-memory") ? -EPERM : open_all(k);
	if (r < 0) {
		kernel_memory_free(k);
		if (r == -EPERM)
			return error_set(e, r, E_PERMISSION,
					 "the memory of the kernel cannot be read (BPF): %s; give "
					 "reprise CAP_BPF and CAP_PERFMON",
					 strerrordesc_np(-r));
		return error_errno(e, r, r == -ENOMEM ? E_NO_MEMORY : E_KERNEL_TOO_OLD,
				   "the memory of the kernel cannot be read (BPF)");
	}
	/* "self" is not there in the /proc of a namespace that we are not in: that gives no times.
	 */
	if (clock_offsets_read(proc_fd, 0, &k->clocks, &unused) < 0)
		k->clocks = (struct clock_offsets){};
	*ret = k;
	return 0;
}

void kernel_memory_free(struct kernel_memory *k)
{
	if (!k)
		return;
	if (k->window)
		munmap(k->window, sizeof(*k->window));
	close_fd(&k->mappings);
	close_fd(&k->own);
	close_fd(&k->program);
	close_fd(&k->map);
	kernel_types_free(&k->types);
	free(k);
}

/* What the window says, after `steps` have been put there. */
static int read_window(struct kernel_memory *k, uint64_t address, void *buf, size_t len)
{
	int r;

	k->window->address = address;
	k->window->length = len;
	r = run(k, k->own);
	if (r >= 0 && k->window->result < 0)
		r = -EFAULT;
	if (r >= 0)
		memcpy(buf, k->window->data, len);
	return r;
}

int kernel_read(struct kernel_memory *k, uint64_t address, void *buf, size_t len)
{
	size_t done = 0;

	k->window->steps = k->window->last = 0;
	while (done < len) {
		size_t part = len - done < COPY_MAX ? len - done : COPY_MAX;
		int r = address ? read_window(k, address + done, (char *)buf + done, part)
				: -EFAULT;

		if (r < 0)
			return r;
		done += part;
	}
	return 0;
}

int kernel_chase(struct kernel_memory *k, uint64_t from, const int *offsets, size_t n, void *buf,
		 size_t len)
{
	struct window *w = k->window;

	if (!from || !n || n > STEPS_MAX + 1 || len > COPY_MAX)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		if (offsets[i] < 0)
			return offsets[i];
	w->steps = n - 1;
	w->last = (uint64_t)offsets[n - 1];
	for (size_t i = 0; i + 1 < n; i++)
		w->offsets[i] = (uint64_t)offsets[i];
	return read_window(k, from, buf, len);
}

uint64_t kernel_pointer(struct kernel_memory *k, uint64_t address)
{
	uint64_t p;

	return kernel_read(k, address, &p, sizeof(p)) < 0 ? 0 : p;
}

int kernel_task(struct kernel_memory *k, pid_t tid, uint64_t *ret)
{
	_cleanup_(close_fd) int link = kernel_bpf_link(k->program, 0, tid);
	uint32_t number = 0;
	int r;

	if (link < 0)
		return link;
	k->window->length = 0;
	r = run(k, link);
	if (r < 0)
		return r;
	*ret = k->window->task;
	/* Is it what the types say? Its number is that of the initial pid namespace. */
	r = kernel_read(k, *ret + (uint64_t)kernel_offset(k, "task_struct", "pid"), &number,
			sizeof(number));
	return r < 0 ? r : number ? 0 : -EINVAL;
}

int kernel_places(struct kernel_memory *k, const struct kernel_place *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		*list[i].at = kernel_offset(k, list[i].structure, list[i].member);
		if (*list[i].at < 0)
			return *list[i].at;
	}
	return 0;
}

int kernel_member(struct kernel_memory *k, uint64_t address, const char *structure,
		  const char *member, void *buf, size_t size)
{
	int is = 0, offset = kernel_offset_size(k, structure, member, &is);

	if (offset < 0)
		return offset;
	return address && (size_t)is == size ? kernel_read(k, address + (uint64_t)offset, buf, size)
	       : address		     ? -EOPNOTSUPP
					     : -EFAULT;
}

static int own_task(struct kernel_memory *k, uint64_t *ret)
{
	pid_t self = (pid_t)syscall(SYS_gettid);
	int r = k->owner == self ? 0 : kernel_task(k, self, &k->owner_task);

	if (r < 0)
		return r;
	k->owner = self;
	*ret = k->owner_task;
	return 0;
}

int kernel_of_file(struct kernel_memory *k, int fd, const int *offsets, size_t n, void *buf,
		   size_t len)
{
	int all[STEPS_MAX + 1] = {kernel_offset(k, "task_struct", "files"),
				  kernel_offset(k, "files_struct", "fdt"),
				  kernel_offset(k, "fdtable", "fd"), fd * (int)sizeof(uint64_t)};
	uint64_t task;
	int r = own_task(k, &task);

	if (r < 0)
		return r;
	if (fd < 0 || n + 4 > STEPS_MAX + 1)
		return -EBADF;
	for (size_t i = 0; i < n; i++)
		all[4 + i] = offsets[i];
	return kernel_chase(k, task, all, n + 4, buf, len);
}

int kernel_file(struct kernel_memory *k, int fd, uint64_t *ret)
{
	return kernel_of_file(k, fd, NULL, 0, ret, sizeof(*ret));
}

int kernel_offset_size(struct kernel_memory *k, const char *structure, const char *member,
		       int *ret_size)
{
	return kernel_types_member(&k->types, structure, member, ret_size);
}

int kernel_offset(struct kernel_memory *k, const char *structure, const char *member)
{
	int unused;

	return kernel_types_member(&k->types, structure, member, &unused);
}

int kernel_bit(const struct kernel_memory *k, const char *structure, const char *member)
{
	return btf_bit(k->types.btf, btf_structure(k->types.btf, structure), member);
}

int kernel_size(struct kernel_memory *k, const char *structure)
{
	return kernel_types_size(&k->types, structure);
}

int kernel_percpu_offset(const struct kernel_memory *k, const char *name)
{
	return btf_variable(k->types.btf, ".data..percpu", name);
}

int kernel_enumerator(struct kernel_memory *k, const char *name)
{
	return kernel_types_enumerator(&k->types, name);
}

int kernel_function(const struct kernel_memory *k, const char *name)
{
	return btf_function(k->types.btf, name);
}
