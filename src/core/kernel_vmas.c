/* SPDX-License-Identifier: Apache-2.0 */
/* A program for the iterator over the mappings of a task (kernel/bpf/task_iter.c, task_vma). */
#include "core/kernel_vmas.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kernel_bpf.h"

#define MEMBERS 3

/* bpf_probe_read_kernel() of each member to the stack, and all to the reader. */
static int load(struct kernel_memory *k)
{
	static const char *const members[MEMBERS] = {"vm_start", "vm_end", "vm_flags"};
	struct bpf_insn p[3 + 6 * MEMBERS + 8] = {
		LOAD(BPF_REG_6, BPF_REG_1, 0), /* struct bpf_iter__task_vma: meta, task, vma */
		LOAD(BPF_REG_7, BPF_REG_1, 16),
		IF_ZERO(BPF_REG_7, 6 * MEMBERS + 5), /* called once more at the end */
	};
	size_t n = 3;

	for (int i = 0; i < MEMBERS; i++) {
		int size = 0;
		int offset = kernel_offset_size(k, "vm_area_struct", members[i], &size);

		if (offset < 0 || size != 8)
			return offset < 0 ? offset : -EOPNOTSUPP;
		p[n++] = MOVE(BPF_REG_3, BPF_REG_7);
		p[n++] = ADD(BPF_REG_3, offset);
		p[n++] = MOVE(BPF_REG_1, BPF_REG_10);
		p[n++] = ADD(BPF_REG_1, -8 * (MEMBERS - i));
		p[n++] = SET(BPF_REG_2, 8);
		p[n++] = CALL(BPF_FUNC_probe_read_kernel);
	}
	p[n++] = LOAD(BPF_REG_1, BPF_REG_6, 0); /* struct bpf_iter_meta: seq */
	p[n++] = MOVE(BPF_REG_2, BPF_REG_10);
	p[n++] = ADD(BPF_REG_2, -8 * MEMBERS);
	p[n++] = SET(BPF_REG_3, 8 * MEMBERS);
	p[n++] = CALL(BPF_FUNC_seq_write);
	p[n++] = SET(BPF_REG_0, 0);
	p[n++] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	return kernel_bpf_load(k, KERNEL_MAPPINGS, p, n);
}

/*
 * 1: complete. After the last mapping of its one thread the iterator does not always come to an
 * end, but begins once more behind the read before (task_vma_seq_get_next(), of BPF_TASK_ITER_TID).
 */
static int add(struct kernel_vmas *l, const struct kernel_vma *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct kernel_vma *place;

		if (l->v.n && rows[i].start <= l->v.v[l->v.n - 1].start)
			return 1;
		place = vec_push(&l->v);
		if (!place)
			return -ENOMEM;
		*place = rows[i];
	}
	return 0;
}

int kernel_vmas_read(struct kernel_memory *k, pid_t tid, struct kernel_vmas *ret)
{
	_cleanup_(close_fd) int link = -EBADF;
	_cleanup_(close_fd) int fd = -EBADF;
	int *program = kernel_bpf_kept(k);
	struct kernel_vma rows[64];
	size_t have = 0;

	if (*program < 0)
		*program = load(k);
	if (*program < 0)
		return *program;
	link = kernel_bpf_link(*program, 0, tid);
	fd = link < 0 ? link : kernel_bpf_iterate(link);
	ret->v.n = 0;
	if (fd < 0)
		return fd;
	for (;;) {
		ssize_t n = read(fd, (char *)rows + have, sizeof(rows) - have);
		int r;

		if (n <= 0)
			return n < 0 ? -errno : ret->v.n ? 0 : -ESRCH;
		have += (size_t)n;
		r = add(ret, rows, have / sizeof(*rows));
		if (r)
			return r < 0 ? r : 0;
		memmove(rows, (char *)rows + have / sizeof(*rows) * sizeof(*rows),
			have % sizeof(*rows));
		have %= sizeof(*rows);
	}
}

void kernel_vmas_free(struct kernel_vmas *l)
{
	vec_free(&l->v);
}

const struct kernel_vma *kernel_vmas_find(const struct kernel_vmas *l, uint64_t start)
{
	size_t low = bisect(l->v.n, i, l->v.v[i].start >= start);

	return low < l->v.n && l->v.v[low].start == start ? &l->v.v[low] : NULL;
}
