/* SPDX-License-Identifier: Apache-2.0 */
#include <unistd.h>

#include "core/kernel_vmas.h"
#include "mm/mm.h"
#include "mm/state.h"

/*
 * Whether flags of mappings have changed, without reading smaps again: root can look at vm_flags of
 * the kernel (core/kernel_vmas.h) in some 0.1 ms, whatever memory there is. Flags that were the
 * same before and after smaps, and as many as its letters, are those; which bit is which letter
 * does not matter, but for one.
 */

/* VM_UFFD_WP: our own registration comes and goes. That it is this bit is seen in the letters. */
#define REGISTERED 0x1000ull
/* VM_HIGH_ARCH_0 to 3, the protection key: the only bits that have no letters, not even "??". */
#define KEY_BITS   (0xfull << 32)

static bool read_now(struct checkpoint *c, pid_t tid, struct kernel_vmas *ret)
{
	struct kernel_memory *k = NULL;
	struct error unused = {};

	return geteuid() == 0 && checkpoint_kernel_memory(c, &k, &unused) >= 0 &&
	       kernel_vmas_read(k, tid, ret) >= 0;
}

static const struct kernel_vma *same_range(const struct kernel_vmas *l, const struct vma *v)
{
	const struct kernel_vma *k = kernel_vmas_find(l, v->start);

	return k && k->end == v->end ? k : NULL;
}

/* smaps tells two letters for each bit (show_smap_vma_flags()). One that came before smaps was
 * read, and went again before the second look, would be missed otherwise. */
bool vma_agrees(const struct vma *v, uint64_t flags)
{
	const int letters = __builtin_popcountll(v->letters) + (int)v->unnamed;

	return !v->strange && letters == __builtin_popcountll(flags & ~KEY_BITS) &&
	       vma_has(v, "uw") == !!(flags & REGISTERED);
}

int vmas_read_raw(struct checkpoint *c, pid_t tid, struct vma_list *ret, struct error *e)
{
	struct kernel_vmas before = {}, after = {};
	bool raw = vmas_costly(c->proc_fd, tid) && read_now(c, tid, &before);
	int r = vmas_read(c->proc_fd, tid, "smaps", ret, e);

	if (r >= 0 && raw && read_now(c, tid, &after))
		vec_for_each (v, &ret->vmas) {
			const struct kernel_vma *x = same_range(&before, v);
			const struct kernel_vma *y = same_range(&after, v);

			v->has_raw = x && y && x->flags == y->flags && vma_agrees(v, x->flags);
			v->raw = v->has_raw ? x->flags : 0;
		}
	kernel_vmas_free(&before);
	kernel_vmas_free(&after);
	return r;
}

bool vmas_same_raw(struct checkpoint *c, pid_t tid, const struct vma_list *list)
{
	struct kernel_vmas now = {};
	bool same = true;

	vec_for_each (v, &list->vmas)
		same = same && (v->has_raw || v->start >= USER_SPACE_END);
	same = same && read_now(c, tid, &now);
	vec_for_each (v, &list->vmas) {
		const struct kernel_vma *k = same ? same_range(&now, v) : NULL;

		if (v->start < USER_SPACE_END)
			same = k && !((k->flags ^ v->raw) & ~REGISTERED);
	}
	kernel_vmas_free(&now);
	return same;
}
