/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/layout.h"

#include <errno.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/mm.h"
#include "mm/vma.h"

/*
 * Where the agent can stand in all address spaces at once.
 */

/* Room into which a stack or the heap may grow while the agent is there. */
#define GROWTH	      (1ul << 30)
#define COMPAT_GROWTH (1ul << 20)
/* Below this are the programs that are not position independent, and mmap_min_addr. */
#define LOWEST	      (1ul << 32)
#define COMPAT_LOWEST (1ul << 20)

/* Offsets from the agent, which is in the middle of the free range, or in that of 32-bit programs
 * at its beginning. */
#define VDSO_OFFSET	   (16ul << 20)
#define SHM_OFFSET	   (1ul << 30)
#define COMPAT_VDSO_OFFSET (2ul * AGENT_SIZE)
#define COMPAT_SHM_OFFSET  (1ul << 20)
#define COMPAT_NEEDED	   (2ul << 20)

static int by_start(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

void layout_largest_gap(struct span_vec *used, uint64_t low, uint64_t high, uint64_t *ret_start,
			uint64_t *ret_end)
{
	uint64_t at = low, best_start = 0, best_end = 0;

	if (used->n)
		qsort(used->v, used->n, sizeof(*used->v), by_start);
	for (size_t i = 0; i <= used->n; i++) {
		uint64_t start = i < used->n && used->v[i].start < high ? used->v[i].start : high;

		if (start > at && start - at > best_end - best_start) {
			best_start = at;
			best_end = start;
		}
		if (i < used->n && used->v[i].end > at)
			at = used->v[i].end;
	}
	*ret_start = best_start;
	*ret_end = best_end;
}

static int add(struct span_vec *used, uint64_t start, uint64_t end, uint64_t growth)
{
	struct span *s = used->n ? &used->v[used->n - 1] : NULL;

	/* mappings mostly come in order, close to each other */
	if (s && start >= s->start && start <= s->end + growth) {
		if (end > s->end)
			s->end = end;
		return 0;
	}
	s = vec_push(used);
	if (!s)
		return -ENOMEM;
	*s = (struct span){start, end};
	return 0;
}

static int add_mm(struct span_vec *used, const Reprise__Mm *mm)
{
	uint64_t growth = mm->compat ? COMPAT_GROWTH : GROWTH;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < mm->n_vmas; i++) {
		const Reprise__Vma *v = mm->vmas[i];
		uint64_t below = v->flags & VMA_GROWSDOWN ? growth : 0;

		r = add(used, v->start > below ? v->start - below : 0, v->end, growth);
	}
	if (r >= 0 && mm->brk < USER_SPACE_END && mm->start_brk <= mm->brk)
		r = add(used, mm->start_brk, mm->brk + growth, growth);
	return r;
}

static int add_own(struct restart *r, struct span_vec *used, struct error *e)
{
	_cleanup_(vma_list_free) struct vma_list list = {};
	int n = (int)procfs_read(r->proc_fd, &list.text, e, "self/maps");

	if (n < 0)
		return n;
	n = vma_parse(list.text, &list);
	vec_for_each (v, &list.vmas) {
		/* our own stack grows as well; [vsyscall] is outside */
		if (n >= 0 && v->end <= USER_SPACE_END)
			n = add(used, v->start > GROWTH ? v->start - GROWTH : 0, v->end, GROWTH);
	}
	return n < 0 ? error_errno(e, n, E_INTERNAL, "cannot understand /proc/self/maps") : 0;
}

/* Those of one width; *ret_any: there are some. */
static int add_mms(struct restart *r, bool compat, struct span_vec *used, bool *ret_any,
		   struct error *e)
{
	const Reprise__Mm *mm;
	int n = 0;

	for (size_t i = 0; n >= 0 && (mm = restart_nth(r, RECORD_MM, i, NULL)); i++) {
		if (mm->compat != compat)
			continue;
		*ret_any = true;
		n = add_mm(used, mm);
		if (n < 0)
			error_errno(e, n, E_NO_MEMORY, "no memory for the layout");
	}
	return n;
}

static int no_range(struct error *e)
{
	return error_set(e, -ENOMEM, E_RESTORE,
			 "no range of addresses is free in all address spaces at once");
}

static int choose_compat(struct restart *r, struct error *e)
{
	struct mm_width *w = &r->mm->widths[WIDTH_32];
	struct span_vec used = {};
	bool any = false;
	uint64_t start;
	int n = add_mms(r, true, &used, &any, e);

	if (n >= 0)
		layout_largest_gap(&used, COMPAT_LOWEST, ARCH_COMPAT_END, &start, &w->free_end);
	vec_free(&used);
	if (n < 0 || !any)
		return n;
	if (!arch_compat_available())
		return error_set(e, -ENOEXEC, E_TASK_COMPAT,
				 "this kernel does not run 32-bit programs");
	if (w->free_end - start < COMPAT_NEEDED)
		return no_range(e);
	r->agent_compat_at = (start + 2 * AGENT_SIZE - 1) & ~(AGENT_SIZE - 1ul);
	w->free_vdso = r->agent_compat_at + COMPAT_VDSO_OFFSET;
	w->free_shm = r->agent_compat_at + COMPAT_SHM_OFFSET;
	w->free_end -= PAGE_BYTES;
	return 0;
}

int mm_restart_choose_agent(struct restart *r, struct error *e)
{
	struct mm_width *w = &r->mm->widths[WIDTH_64];
	struct span_vec used = {};
	bool any;
	uint64_t start;
	int n = add_own(r, &used, e);

	if (n >= 0)
		n = add_mms(r, false, &used, &any, e);
	if (n >= 0)
		layout_largest_gap(&used, LOWEST, USER_SPACE_END, &start, &w->free_end);
	vec_free(&used);
	if (n < 0)
		return n;
	if (w->free_end - start < 4 * GROWTH)
		return no_range(e);
	/* whole large pages, so that no page table is shared with what is near */
	r->agent_at = (start + (w->free_end - start) / 2) & ~0x1ffffful;
	w->free_vdso = r->agent_at + VDSO_OFFSET;
	w->free_shm = r->agent_at + SHM_OFFSET;
	return choose_compat(r, e);
}
