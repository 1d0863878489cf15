/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "mm/build.h"
#include "mm/calls.h"
#include "mm/keys.h"
#include "mm/mm.h"
#include "mm/pagemap.h"
#include "mm/vma.h"

/*
 * What would have hindered forking and filling, in an order that the kernel
 * dictates: guard pages before locks (EINVAL in a locked mapping), seals last.
 */

static int guards(struct calls *c, const Reprise__Mm *mm, struct error *e)
{
	for (size_t i = 0; i < mm->n_pages; i++) {
		const Reprise__PageRange *range = mm->pages[i];
		int r;

		if (range->kind != PAGE_GUARD)
			continue;
		calls_add(c, "madvise(MADV_GUARD_INSTALL)", range->start,
			  range->start + range->length, __NR_madvise, VAL(range->start),
			  VAL(range->length), VAL(MADV_GUARD_INSTALL));
		r = calls_bound(c, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool has_guards(const Reprise__Mm *mm, const Reprise__Vma *v)
{
	for (size_t i = 0; i < mm->n_pages; i++) {
		const Reprise__PageRange *range = mm->pages[i];

		if (range->kind == PAGE_GUARD && range->start < v->end &&
		    range->start + range->length > v->start)
			return true;
	}
	return false;
}

static const struct {
	uint32_t flag;
	int advice;
} advices[] = {
	{VMA_DONTFORK, MADV_DONTFORK},	   {VMA_WIPEONFORK, MADV_WIPEONFORK},
	{VMA_DONTDUMP, MADV_DONTDUMP},	   {VMA_SEQUENTIAL, MADV_SEQUENTIAL},
	{VMA_RANDOM, MADV_RANDOM},	   {VMA_HUGEPAGE, MADV_HUGEPAGE},
	{VMA_NOHUGEPAGE, MADV_NOHUGEPAGE}, {VMA_MERGEABLE, MADV_MERGEABLE},
};

static void advise(struct calls *c, const Reprise__Mm *mm, const Reprise__Vma *v)
{
	uint64_t flags = v->flags;

	/* done when it was mapped (build.c), unless it came from the parent */
	if (!mm->parent)
		flags &= ~(uint64_t)VMA_NOHUGEPAGE;

	/* that kind of mapping has these by itself */
	if (v->kind == VMA_DROPPABLE)
		flags &= ~(uint64_t)(VMA_WIPEONFORK | VMA_DONTDUMP);
	for (size_t i = 0; i < sizeof(advices) / sizeof(advices[0]); i++)
		if (flags & advices[i].flag)
			calls_add(c, "madvise", v->start, v->end, __NR_madvise, VAL(v->start),
				  VAL(v->end - v->start), VAL(advices[i].advice));
}

static void name(struct calls *c, const Reprise__Vma *v)
{
	uint32_t text = batch_data(&c->batch, v->name, (uint32_t)strlen(v->name) + 1);

	/* kernels without CONFIG_ANON_VMA_NAME do without */
	calls_try(c, "prctl(PR_SET_VMA_ANON_NAME)", v->start, v->end, -EINVAL, __NR_prctl,
		  VAL(PR_SET_VMA), VAL(PR_SET_VMA_ANON_NAME), VAL(v->start), VAL(v->end - v->start),
		  DATA(text));
}

/*
 * mlock() brings all pages in, as all pages of a mapping locked in that way are in already; where
 * it cannot (no access, guard pages) it says so but has locked the mapping. MLOCK_ONFAULT never
 * tries, so that its failure is a real one: the limit.
 */
static void lock(struct calls *c, const Reprise__Mm *mm, const Reprise__Vma *v)
{
	bool partly = !(v->prot & (PROT_READ | PROT_WRITE | PROT_EXEC)) || has_guards(mm, v);

	if ((v->flags & VMA_LOCKONFAULT) || partly)
		calls_add(c, "mlock2(MLOCK_ONFAULT)", v->start, v->end, __NR_mlock2, VAL(v->start),
			  VAL(v->end - v->start), VAL(MLOCK_ONFAULT));
	if (!(v->flags & VMA_LOCKONFAULT))
		calls_try(c, "mlock", v->start, v->end, partly ? -ENOMEM : 0, __NR_mlock,
			  VAL(v->start), VAL(v->end - v->start));
}

static bool made_by_kernel(const Reprise__Vma *v)
{
	return v->kind == VMA_VVAR || v->kind == VMA_VDSO;
}

static int seal(struct calls *c, const Reprise__Mm *mm, struct error *e)
{
	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Reprise__Vma *v = mm->vmas[i];
		int r;

		if (made_by_kernel(v) || !(v->flags & VMA_SEALED))
			continue;
		calls_add(c, "mseal", v->start, v->end, __NR_mseal, VAL(v->start),
			  VAL(v->end - v->start), VAL(0));
		r = calls_bound(c, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int mm_restart_finish(struct restart *r, struct restart_process *p, struct error *e)
{
	_cleanup_(calls_free) struct calls c = {.r = r, .p = p};
	const Reprise__Mm *mm = p->mm;
	int n = guards(&c, mm, e);

	keys_finish(&c);
	for (size_t i = 0; n >= 0 && i < mm->n_vmas; i++) {
		const Reprise__Vma *v = mm->vmas[i];

		if (made_by_kernel(v))
			continue;
		if (v->name && *v->name)
			name(&c, v);
		advise(&c, mm, v);
		if (v->flags & VMA_LOCKED)
			lock(&c, mm, v);
		n = calls_bound(&c, e);
	}
	if (n >= 0 && mm->future_lock)
		calls_add(&c, "mlockall", 0, 0, __NR_mlockall, VAL(mm->future_lock));
	if (n >= 0)
		n = seal(&c, mm, e);
	return n < 0 ? n : calls_run(&c, e);
}
