/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which memory belongs to which userfaultfd is written in the struct vm_area_struct of
 * the mapping alone. These stand in a maple tree (lib/maple_tree.c, since 6.1).
 */
#include "fs/userfaultfd.h"

#include <errno.h>

#define NODE_MASK 255ull /* MAPLE_NODE_MASK: nodes are aligned, and the type is in the rest */
#define DEPTH_MAX 32
#define SLOTS_MAX 16
enum maple_type { LEAF_64 = 1, RANGE_64 = 2, ARANGE_64 = 3 };

int userfaultfd_look(struct kernel_memory *k, int fd, struct userfaultfd_seen *ret)
{
	static const char type[] = "userfaultfd_ctx";
	uint64_t file;
	int r = kernel_file(k, fd, &file);

	if (r >= 0)
		r = kernel_member(k, file, "file", "private_data", &ret->context, 8);
	if (r >= 0)
		r = kernel_member(k, ret->context, type, "mm", &ret->mm, 8);
	if (r >= 0)
		r = kernel_member(k, ret->context, type, "flags", &ret->flags, 4);
	if (r >= 0)
		r = kernel_member(k, ret->context, type, "features", &ret->features, 4);
	if (r >= 0)
		r = kernel_member(k, ret->context, type, "mmap_changing", &ret->changing, 4);
	return r;
}

int userfaultfd_mm(struct kernel_memory *k, pid_t tid, uint64_t *ret)
{
	uint64_t task;
	int r = kernel_task(k, tid, &task);

	return r < 0 ? r : kernel_member(k, task, "task_struct", "mm", ret, sizeof(*ret));
}

/* The entry for an address in one node; `type` is that of the node. */
static int descend(struct kernel_memory *k, uint64_t node, const char *type, uint64_t address,
		   uint64_t *ret)
{
	uint64_t pivots[SLOTS_MAX], slots[SLOTS_MAX];
	int size = 0, room = 0, at, r;
	int first = kernel_offset_size(k, type, "pivot", &size);
	int slot = kernel_offset_size(k, type, "slot", &room);
	uint32_t i = 0, n;

	if (first < 0 || slot < 0 || size <= 0 || room <= size || room > (int)sizeof(slots))
		return -EOPNOTSUPP;
	r = kernel_read(k, node + (uint64_t)first, pivots, (size_t)size);
	if (r >= 0)
		r = kernel_read(k, node + (uint64_t)slot, slots, (size_t)room);
	if (r < 0)
		return r;
	n = (uint32_t)size / 8;
	at = 0;
	/* A pivot of zero ends a node that is not full; the last slot has none. */
	for (i = 0; i < n && pivots[i] < address && (i == 0 || pivots[i]); i++)
		at = (int)i + 1;
	*ret = slots[at];
	return 0;
}

static int find_vma(struct kernel_memory *k, uint64_t mm, uint64_t address, uint64_t *ret)
{
	uint64_t entry;
	int r = kernel_member(k, mm, "mm_struct", "mm_mt.ma_root", &entry, sizeof(entry));

	for (int depth = 0; r >= 0 && depth < DEPTH_MAX; depth++) {
		enum maple_type type = (entry >> 3) & 0xf;

		if (type < LEAF_64 || type > ARANGE_64)
			return -EOPNOTSUPP;
		r = descend(k, entry & ~NODE_MASK,
			    type == ARANGE_64 ? "maple_arange_64" : "maple_range_64", address,
			    &entry);
		if (r < 0 || type != LEAF_64)
			continue;
		*ret = entry;
		return entry ? 0 : -ENOENT;
	}
	return r < 0 ? r : -ELOOP;
}

int userfaultfd_vma(struct kernel_memory *k, uint64_t mm, uint64_t start, uint64_t *ret)
{
	uint64_t is;
	int r = find_vma(k, mm, start, ret);

	if (r >= 0)
		r = kernel_member(k, *ret, "vm_area_struct", "vm_start", &is, sizeof(is));
	return r >= 0 && is != start ? -ESTALE : r;
}

int userfaultfd_of(struct kernel_memory *k, uint64_t mm, uint64_t start, uint64_t *ret)
{
	uint64_t vma;
	int r = userfaultfd_vma(k, mm, start, &vma);

	return r < 0 ? r
		     : kernel_member(k, vma, "vm_area_struct", "vm_userfaultfd_ctx.ctx", ret,
				     sizeof(*ret));
}
