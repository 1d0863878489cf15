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
#define GROWTH (1ul << 30)
/* Below this are the programs that are not position independent, and mmap_min_addr. */
#define LOWEST (1ul << 32)

static int by_start(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

void layout_largest_gap(struct span_vec *used, uint64_t *ret_start, uint64_t *ret_end)
{
	uint64_t at = LOWEST, best_start = 0, best_end = 0;

	if (used->n)
		qsort(used->v, used->n, sizeof(*used->v), by_start);
	for (size_t i = 0; i <= used->n; i++) {
		uint64_t start = i < used->n ? used->v[i].start : USER_SPACE_END;

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

static int add(struct span_vec *used, uint64_t start, uint64_t end)
{
	struct span *s = used->n ? &used->v[used->n - 1] : NULL;

	/* mappings mostly come in order, close to each other */
	if (s && start >= s->start && start <= s->end + GROWTH) {
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
	int r = 0;

	for (size_t i = 0; r >= 0 && i < mm->n_vmas; i++) {
		const Reprise__Vma *v = mm->vmas[i];
		uint64_t below = v->flags & VMA_GROWSDOWN ? GROWTH : 0;

		r = add(used, v->start > below ? v->start - below : 0, v->end);
	}
	if (r >= 0 && mm->brk < USER_SPACE_END && mm->start_brk <= mm->brk)
		r = add(used, mm->start_brk, mm->brk + GROWTH);
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
			n = add(used, v->start > GROWTH ? v->start - GROWTH : 0, v->end);
	}
	return n < 0 ? error_errno(e, n, E_INTERNAL, "cannot understand /proc/self/maps") : 0;
}

int mm_restart_choose_agent(struct restart *r, struct error *e)
{
	struct span_vec used = {};
	const Reprise__Mm *mm;
	int n = add_own(r, &used, e);

	for (size_t i = 0; n >= 0 && (mm = restart_nth(r, RECORD_MM, i, NULL)); i++) {
		n = add_mm(&used, mm);
		if (n < 0)
			error_errno(e, n, E_NO_MEMORY, "no memory for the layout");
	}
	if (n >= 0)
		layout_largest_gap(&used, &r->mm->free_start, &r->mm->free_end);
	vec_free(&used);
	if (n < 0)
		return n;
	if (r->mm->free_end - r->mm->free_start < 4 * GROWTH)
		return error_set(e, -ENOMEM, E_RESTORE,
				 "no range of addresses is free in all address spaces at once");
	/* whole large pages, so that no page table is shared with what is near */
	r->agent_at = (r->mm->free_start + (r->mm->free_end - r->mm->free_start) / 2) & ~0x1ffffful;
	return 0;
}
