/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program for an iterator over threads or what they have (kernel/bpf/task_iter.c), made for the
 * paths that are asked for: a reading after the other, without a branch. What it finds is what a
 * read of the iterator returns.
 */
#include "core/kernel_scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"
#include "core/vec.h"

struct kernel_scan {
	int program;
	int last; /* a map of one struct last; negative: none */
	size_t n;
};

struct program {
	VEC(struct bpf_insn) insns;
	bool failed;
};

/* Which are left out. */
struct condition {
	bool any;
	bool zero;   /* whose first value is 0 */
	uint64_t is; /* or is not this */
	int last;    /* a map, or negative: whose first value is that of the one before */
};

/* What was written last. */
struct last {
	uint64_t task, value;
};

static void emit(struct program *p, struct bpf_insn insn)
{
	struct bpf_insn *at = vec_push(&p->insns);

	if (at)
		*at = insn;
	else
		p->failed = true;
}

void kernel_path_add(struct kernel_memory *k, struct kernel_path *p, const char *structure,
		     const char *member)
{
	kernel_path_add_offset(p, kernel_offset(k, structure, member));
}

void kernel_path_add_offset(struct kernel_path *p, int offset)
{
	if (p->broken || offset < 0 || p->n == KERNEL_PATH_MAX)
		*p = (struct kernel_path){.broken = true};
	else
		p->offsets[p->n++] = offset;
}

int kernel_number_offset(struct kernel_memory *k, uint64_t own_task, uint32_t *level)
{
	const int to_level[] = {kernel_offset(k, "task_struct", "thread_pid"),
				kernel_offset(k, "pid", "level")};
	int numbers = kernel_offset(k, "pid", "numbers"), size = kernel_size(k, "upid");
	int nr = kernel_offset(k, "upid", "nr");
	int r = kernel_chase(k, own_task, to_level, 2, level, sizeof(*level));

	if (numbers < 0 || size < 0 || nr < 0)
		return -ENOENT;
	return r < 0 ? r : numbers + (int)*level * size + nr;
}

/* Where value i stands on the stack of the program. */
static int16_t slot(size_t n, size_t i)
{
	return (int16_t)(-8 * (int)(n - i));
}

/* R3: where a path begins. */
static void emit_from(struct program *p, const struct kernel_path *path, size_t n)
{
	switch (path->from) {
	case KERNEL_FROM_TASK:
		emit(p, MOVE(BPF_REG_3, BPF_REG_7));
		break;
	case KERNEL_FROM_OBJECT:
		emit(p, MOVE(BPF_REG_3, BPF_REG_8));
		break;
	case KERNEL_FROM_NUMBER:
		emit(p, MOVE(BPF_REG_3, BPF_REG_9));
		break;
	case KERNEL_FROM_VALUE:
		emit(p, LOAD(BPF_REG_3, BPF_REG_10, slot(n, path->value)));
		break;
	}
}

/* bpf_probe_read_kernel() leaves zeros where it fails; nothing is at low addresses. */
static void emit_path(struct program *p, const struct kernel_path *path, size_t n, int16_t at)
{
	if (path->n == 0 && path->from == KERNEL_FROM_TASK) {
		emit(p, INSN(BPF_ST | BPF_MEM | BPF_DW, BPF_REG_10, 0, at, 0));
		return;
	}
	emit_from(p, path, n);
	/* what is read into is to be there */
	if (path->n == 0)
		emit(p, STORE(BPF_REG_10, at, BPF_REG_3));
	else
		emit(p, INSN(BPF_ST | BPF_MEM | BPF_DW, BPF_REG_10, 0, at, 0));
	for (unsigned int i = 0; i < path->n; i++) {
		if (i > 0)
			emit(p, LOAD(BPF_REG_3, BPF_REG_10, at));
		emit(p, ADD(BPF_REG_3, path->offsets[i]));
		emit(p, MOVE(BPF_REG_1, BPF_REG_10));
		emit(p, ADD(BPF_REG_1, at));
		emit(p, SET(BPF_REG_2, 8));
		emit(p, CALL(BPF_FUNC_probe_read_kernel));
	}
}

/* Past one that is like the one before. Returns the place of the jump. */
static size_t emit_unlike(struct program *p, int16_t at, int last)
{
	size_t jump;

	emit(p, INSN(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_VALUE, 0, last));
	emit(p, INSN(0, 0, 0, 0, 0));
	emit(p, LOAD(BPF_REG_2, BPF_REG_1, offsetof(struct last, task)));
	emit(p, LOAD(BPF_REG_3, BPF_REG_1, offsetof(struct last, value)));
	emit(p, LOAD(BPF_REG_4, BPF_REG_10, at));
	emit(p, MOVE(BPF_REG_5, BPF_REG_7));
	emit(p, STORE(BPF_REG_1, offsetof(struct last, task), BPF_REG_5));
	emit(p, STORE(BPF_REG_1, offsetof(struct last, value), BPF_REG_4));
	emit(p, INSN(BPF_JMP | BPF_JNE | BPF_X, BPF_REG_3, BPF_REG_4, 1, 0));
	jump = p->insns.n;
	emit(p, INSN(BPF_JMP | BPF_JEQ | BPF_X, BPF_REG_2, BPF_REG_5, 0, 0));
	return jump;
}

/* Past what is left out: returns the place of the jump. */
static size_t emit_condition(struct program *p, int16_t at, const struct condition *which)
{
	emit(p, LOAD(BPF_REG_1, BPF_REG_10, at));
	emit(p, INSN(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_2, 0, 0, (int32_t)(uint32_t)which->is));
	emit(p, INSN(0, 0, 0, 0, (int32_t)(uint32_t)(which->is >> 32)));
	emit(p,
	     INSN(BPF_JMP | (which->zero ? BPF_JEQ : BPF_JNE) | BPF_X, BPF_REG_1, BPF_REG_2, 0, 0));
	return p->insns.n - 1;
}

/* What the program is called with: meta, the task, and what that has. Returns places of jumps to
 * the end, since it is called once more then. */
static size_t emit_begin(struct program *p, enum kernel_iterator over, size_t ends[2])
{
	emit(p, LOAD(BPF_REG_6, BPF_REG_1, 0));
	emit(p, LOAD(BPF_REG_7, BPF_REG_1, 8));
	if (over == KERNEL_FILES)
		emit(p, INSN(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_9, BPF_REG_1, 16, 0));
	if (over != KERNEL_TASKS)
		emit(p, LOAD(BPF_REG_8, BPF_REG_1, over == KERNEL_FILES ? 24 : 16));
	ends[0] = p->insns.n;
	emit(p, IF_ZERO(BPF_REG_7, 0));
	ends[1] = p->insns.n;
	if (over != KERNEL_TASKS)
		emit(p, IF_ZERO(BPF_REG_8, 0));
	return over == KERNEL_TASKS ? 1 : 2;
}

static void emit_all(struct program *p, enum kernel_iterator over, const struct kernel_path *paths,
		     size_t n, const struct condition *which)
{
	size_t ends[4], nends = emit_begin(p, over, ends);

	for (size_t i = 0; i < n; i++) {
		emit_path(p, &paths[i], n, slot(n, i));
		if (!which->any && i == 0)
			ends[nends++] = emit_condition(p, slot(n, i), which);
		if (which->last >= 0 && i == 0)
			ends[nends++] = emit_unlike(p, slot(n, i), which->last);
	}
	emit(p, LOAD(BPF_REG_1, BPF_REG_6, 0)); /* struct bpf_iter_meta: seq */
	emit(p, MOVE(BPF_REG_2, BPF_REG_10));
	emit(p, ADD(BPF_REG_2, slot(n, 0)));
	emit(p, SET(BPF_REG_3, (int)(n * 8)));
	emit(p, CALL(BPF_FUNC_seq_write));
	for (size_t i = 0; i < nends && !p->failed; i++)
		p->insns.v[ends[i]].off = (int16_t)(p->insns.n - ends[i] - 1);
	emit(p, SET(BPF_REG_0, 0));
	emit(p, INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
}

static int new_last(void)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY,
			       .key_size = sizeof(uint32_t),
			       .value_size = sizeof(struct last),
			       .max_entries = 1};

	return kernel_bpf(BPF_MAP_CREATE, &attr);
}

/* From here on. */
static int forget_last(int map)
{
	const struct last none = {};
	const uint32_t key = 0;
	union bpf_attr attr = {.map_fd = (uint32_t)map,
			       .key = kernel_bpf_pointer(&key),
			       .value = kernel_bpf_pointer(&none)};

	return map < 0 ? 0 : kernel_bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

static int new_scan(struct kernel_scan **ret, struct kernel_memory *k, enum kernel_iterator over,
		    const struct kernel_path *paths, size_t n, struct condition which)
{
	struct kernel_scan *s = calloc(1, sizeof(*s));
	struct program p = {};
	int r = -ENOMEM;

	if (n && n <= KERNEL_SCAN_VALUES)
		emit_all(&p, over, paths, n, &which);
	if (s && !p.failed && p.insns.n)
		r = kernel_bpf_load(k, over, p.insns.v, p.insns.n);
	vec_free(&p.insns);
	if (r < 0) {
		free(s);
		return r;
	}
	s->program = r;
	s->last = which.last;
	s->n = n;
	*ret = s;
	return 0;
}

int kernel_scan_new(struct kernel_scan **ret, struct kernel_memory *k,
		    const struct kernel_path *paths, size_t n)
{
	return new_scan(ret, k, KERNEL_TASKS, paths, n,
			(struct condition){.any = true, .last = -EBADF});
}

int kernel_scan_new_only(struct kernel_scan **ret, struct kernel_memory *k,
			 const struct kernel_path *paths, size_t n, uint64_t is)
{
	return new_scan(ret, k, KERNEL_TASKS, paths, n,
			(struct condition){.is = is, .last = -EBADF});
}

int kernel_scan_new_over(struct kernel_scan **ret, struct kernel_memory *k,
			 enum kernel_iterator over, const struct kernel_path *paths, size_t n)
{
	struct condition which = {.zero = true, .last = -EBADF};
	int r;

	if (over == KERNEL_MAPPINGS)
		which.last = new_last();
	if (over == KERNEL_MAPPINGS && which.last < 0)
		return which.last;
	r = new_scan(ret, k, over, paths, n, which);
	if (r < 0)
		close_fd(&which.last);
	return r;
}

void kernel_scan_free(struct kernel_scan *s)
{
	if (!s)
		return;
	close_fd(&s->program);
	close_fd(&s->last);
	free(s);
}

static int scan(struct kernel_scan *s, pid_t pid, pid_t tid, kernel_scan_fn fn, void *arg)
{
	_cleanup_(close_fd) int link = kernel_bpf_link(s->program, pid, tid);
	_cleanup_(close_fd) int fd = link < 0 ? link : kernel_bpf_iterate(link);
	uint64_t rows[512];
	size_t row = s->n * sizeof(*rows), have = 0;
	bool any = false;

	if (fd < 0 || forget_last(s->last) < 0)
		return fd < 0 ? fd : -EIO;
	for (;;) {
		ssize_t n = read(fd, (char *)rows + have, sizeof(rows) / row * row - have);

		if (n < 0)
			return -errno;
		if (n == 0)
			return any ? 0 : -ESRCH;
		have += (size_t)n;
		for (size_t i = 0; i < have / row; i++, any = true)
			fn(arg, rows + i * s->n);
		memmove(rows, (char *)rows + have / row * row, have % row);
		have %= row;
	}
}

int kernel_scan_process(struct kernel_scan *s, pid_t pid, kernel_scan_fn fn, void *arg)
{
	return scan(s, pid, 0, fn, arg);
}

int kernel_scan_all(struct kernel_scan *s, kernel_scan_fn fn, void *arg)
{
	return scan(s, 0, 0, fn, arg);
}

int kernel_scan_thread(struct kernel_scan *s, pid_t tid, kernel_scan_fn fn, void *arg)
{
	return scan(s, 0, tid, fn, arg);
}
