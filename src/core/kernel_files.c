/* SPDX-License-Identifier: Apache-2.0 */
/* A program for the iterator over descriptors (kernel/bpf/task_iter.c, task_file). */
#include "core/kernel_files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"

struct kernel_files {
	int program;
};

struct program {
	struct bpf_insn insns[112];
	size_t n, ends[20], nends;
};

/* Where it keeps things: the row, and one word before it. */
#define AT(member) ((int16_t)((int)offsetof(struct kernel_descriptor, member) - ROW))
#define ROW	   ((int)sizeof(struct kernel_descriptor))
#define NOTE	   ((int16_t)(-ROW - 8))

static void emit(struct program *p, struct bpf_insn insn)
{
	p->insns[p->n++] = insn;
}

static void emit_end(struct program *p, struct bpf_insn jump)
{
	p->ends[p->nends++] = p->n;
	emit(p, jump);
}

/* Eight bytes from where R3 points to; if they cannot be read, that is all. */
static void emit_read(struct program *p, int16_t to)
{
	emit(p, MOVE(BPF_REG_1, BPF_REG_10));
	emit(p, ADD(BPF_REG_1, to));
	emit(p, SET(BPF_REG_2, 8));
	emit(p, CALL(BPF_FUNC_probe_read_kernel));
	emit_end(p, INSN(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_0, 0, 0, 0));
}

/* From a register to a member, and from there on; the last is not followed. */
static void emit_chase(struct program *p, int from, const int *offsets, size_t n, int16_t to)
{
	for (size_t i = 0; i < n; i++) {
		if (i == 0)
			emit(p, MOVE(BPF_REG_3, from));
		else
			emit(p, LOAD(BPF_REG_3, BPF_REG_10, to));
		emit(p, ADD(BPF_REG_3, offsets[i]));
		emit_read(p, to);
	}
}

static void emit_only(struct program *p, uint64_t is)
{
	emit(p, LOAD(BPF_REG_1, BPF_REG_10, NOTE));
	emit(p, INSN(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_2, 0, 0, (int32_t)(uint32_t)is));
	emit(p, INSN(0, 0, 0, 0, (int32_t)(uint32_t)(is >> 32)));
	emit_end(p, INSN(BPF_JMP | BPF_JNE | BPF_X, BPF_REG_1, BPF_REG_2, 0, 0));
}

/* close_on_exec is an array of words: that with the bit of the descriptor in R9. */
static void emit_word(struct program *p)
{
	emit(p, LOAD(BPF_REG_3, BPF_REG_10, AT(execs)));
	emit(p, MOVE(BPF_REG_1, BPF_REG_9));
	emit(p, INSN(BPF_ALU64 | BPF_RSH | BPF_K, BPF_REG_1, 0, 0, 6));
	emit(p, INSN(BPF_ALU64 | BPF_LSH | BPF_K, BPF_REG_1, 0, 0, 3));
	emit(p, INSN(BPF_ALU64 | BPF_ADD | BPF_X, BPF_REG_3, BPF_REG_1, 0, 0));
	emit_read(p, AT(execs));
}

/*
 * An inode keeps its lists of locks when the last one has gone, as that of /dev/null does for ever:
 * an empty list leads to itself.
 */
static void emit_locks(struct program *p, const int *to_locks, int list)
{
	size_t none;

	emit_chase(p, BPF_REG_8, to_locks, 2, AT(locks));
	emit(p, LOAD(BPF_REG_3, BPF_REG_10, AT(locks)));
	none = p->n;
	emit(p, IF_ZERO(BPF_REG_3, 0));
	emit(p, ADD(BPF_REG_3, list));
	emit(p, STORE(BPF_REG_10, AT(locks), BPF_REG_3));
	emit_read(p, NOTE);
	emit(p, LOAD(BPF_REG_1, BPF_REG_10, NOTE));
	emit(p, LOAD(BPF_REG_2, BPF_REG_10, AT(locks)));
	emit(p, INSN(BPF_JMP | BPF_JNE | BPF_X, BPF_REG_1, BPF_REG_2, 2, 0));
	emit(p, SET(BPF_REG_1, 0));
	emit(p, STORE(BPF_REG_10, AT(locks), BPF_REG_1));
	p->insns[none].off = (int16_t)(p->n - none - 1);
}

static int load(struct kernel_memory *k, uint64_t tracer, int number)
{
	const int list = kernel_offset(k, "file_lock_context", "flc_posix");
	const int to_tracer[] = {kernel_offset(k, "task_struct", "parent")};
	const int to_number[] = {kernel_offset(k, "task_struct", "thread_pid"), number};
	const int to_execs[] = {kernel_offset(k, "task_struct", "files"),
				kernel_offset(k, "files_struct", "fdt"),
				kernel_offset(k, "fdtable", "close_on_exec")};
	const int to_locks[] = {kernel_offset(k, "file", "f_inode"),
				kernel_offset(k, "inode", "i_flctx")};
	struct program p = {};

	if (to_tracer[0] < 0 || to_number[0] < 0 || number < 0 || to_execs[0] < 0 ||
	    to_execs[1] < 0 || to_execs[2] < 0 || to_locks[0] < 0 || to_locks[1] < 0 || list < 0)
		return -ENOENT;
	emit(&p, LOAD(BPF_REG_6, BPF_REG_1, 0)); /* meta, task, fd, file */
	emit(&p, LOAD(BPF_REG_7, BPF_REG_1, 8));
	emit(&p, INSN(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_9, BPF_REG_1, 16, 0));
	emit(&p, LOAD(BPF_REG_8, BPF_REG_1, 24));
	emit_end(&p, IF_ZERO(BPF_REG_7, 0)); /* called once more at the end */
	emit_end(&p, IF_ZERO(BPF_REG_8, 0));
	emit_chase(&p, BPF_REG_7, to_tracer, 1, NOTE);
	emit_only(&p, tracer);
	emit_chase(&p, BPF_REG_7, to_number, 2, AT(tid));
	emit_chase(&p, BPF_REG_7, to_execs, 3, AT(execs));
	emit_word(&p);
	emit_locks(&p, to_locks, list);
	emit(&p, STORE(BPF_REG_10, AT(fd), BPF_REG_9));
	emit(&p, STORE(BPF_REG_10, AT(file), BPF_REG_8));
	emit(&p, LOAD(BPF_REG_1, BPF_REG_6, 0)); /* struct bpf_iter_meta: seq */
	emit(&p, MOVE(BPF_REG_2, BPF_REG_10));
	emit(&p, ADD(BPF_REG_2, -ROW));
	emit(&p, SET(BPF_REG_3, ROW));
	emit(&p, CALL(BPF_FUNC_seq_write));
	for (size_t i = 0; i < p.nends; i++)
		p.insns[p.ends[i]].off = (int16_t)(p.n - p.ends[i] - 1);
	emit(&p, SET(BPF_REG_0, 0));
	emit(&p, INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
	return kernel_bpf_load(k, KERNEL_FILES, p.insns, p.n);
}

int kernel_files_new(struct kernel_files **ret, struct kernel_memory *k, uint64_t tracer,
		     int number)
{
	struct kernel_files *f = calloc(1, sizeof(*f));
	int r = f ? load(k, tracer, number) : -ENOMEM;

	if (r < 0) {
		free(f);
		return r;
	}
	f->program = r;
	*ret = f;
	return 0;
}

void kernel_files_free(struct kernel_files *f)
{
	if (!f)
		return;
	close_fd(&f->program);
	free(f);
}

int kernel_files_read(struct kernel_files *f, kernel_files_fn fn, void *arg)
{
	_cleanup_(close_fd) int link = kernel_bpf_link(f->program, 0, 0);
	_cleanup_(close_fd) int fd = link < 0 ? link : kernel_bpf_iterate(link);
	struct kernel_descriptor rows[128];
	size_t have = 0;

	if (fd < 0)
		return fd;
	for (;;) {
		ssize_t n = read(fd, (char *)rows + have, sizeof(rows) - have);
		size_t whole;

		if (n <= 0)
			return n < 0 ? -errno : 0;
		have += (size_t)n;
		whole = have / sizeof(*rows);
		for (size_t i = 0; i < whole; i++)
			fn(arg, &rows[i]);
		have -= whole * sizeof(*rows);
		memmove(rows, rows + whole, have);
	}
}
