/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "core/cleanup.h"
#include "fs/file.h"
#include "fs/inode.h"
#include "fs/uring.h"
#include "mm/aio.h"
#include "mm/keys.h"
#include "mm/layout.h"
#include "mm/mm.h"
#include "mm/pagemap.h"
#include "mm/vma.h"

/*
 * Nothing in an image is trusted: all that the restart of address spaces relies
 * upon is checked here, before a task is made.
 */

#define INVALID(e, ...) error_set((e), -EINVAL, E_IMAGE_INVALID, __VA_ARGS__)

static bool aligned(uint64_t address)
{
	return address % PAGE_BYTES == 0;
}

static int check_huge(const Reprise__Vma *v, struct error *e)
{
	uint64_t size = v->page_size;

	if (!size && v->kind == VMA_HUGE_ANON)
		return INVALID(e, "huge pages of no size");
	if (!size)
		return 0;
	if (v->kind != VMA_HUGE_ANON && v->kind != VMA_FILE && v->kind != VMA_SYSV)
		return INVALID(e, "huge pages where there are none");
	if (size < PAGE_BYTES || size > 1ul << 40 || (size & (size - 1)) || v->start % size ||
	    v->end % size)
		return INVALID(e, "huge pages of an impossible size");
	return 0;
}

/* What it shows of the ring is for the kernel to say, when it is mapped. */
static int check_ring(const struct restart *r, const Reprise__Vma *v, struct error *e)
{
	const Reprise__File *file = restart_find(r, RECORD_FILE, v->ring);

	bool fits = false;

	if (file && v->kind == VMA_PACKET)
		fits = file->kind == FILE_PACKET && !v->offset;
	else if (file && v->kind == VMA_BPF_MAP)
		fits = file->kind == FILE_BPF_MAP;
	else if (file)
		fits = file->kind == FILE_IO_URING && uring_offset_known(v->offset);
	if (!fits || v->inode || !(v->flags & VMA_SHARED))
		return INVALID(e, "a mapping of a ring that is none");
	return 0;
}

static int check_vma(const struct restart *r, const Reprise__Vma *v, uint64_t below,
		     struct error *e)
{
	bool backed = v->kind == VMA_FILE || v->kind == VMA_SYSV;

	if (!aligned(v->start) || !aligned(v->end) || v->start >= v->end || v->end > USER_SPACE_END)
		return INVALID(e, "impossible addresses");
	if (v->start < below)
		return INVALID(e, "overlaps the one before");
	if ((v->kind < VMA_ANON || v->kind > VMA_SYSV) && !vma_of_ring(v->kind) &&
	    v->kind != VMA_AIO)
		return INVALID(e, "unknown kind %u", v->kind);
	if (v->flags & ~(uint64_t)VMA_FLAGS_ALL)
		return INVALID(e, "unknown flags %#lx", (unsigned long)v->flags);
	if (v->prot & ~(uint32_t)(PROT_READ | PROT_WRITE | PROT_EXEC) || v->pkey >= KEYS)
		return INVALID(e, "unknown protection");
	if (vma_of_ring(v->kind) != !!v->ring)
		return INVALID(e, "a ring where there is none, or the reverse");
	if (v->ring)
		return check_ring(r, v, e);
	if ((v->kind == VMA_AIO) != !!v->aio)
		return INVALID(e, "a ring where there is none, or the reverse");
	if (v->aio)
		return aio_validate(v, e);
	if (!backed != !v->inode || (!backed && (v->flags & VMA_SHARED)))
		return INVALID(e, "a file where there is none, or the reverse");
	if (v->kind == VMA_SYSV && !(v->flags & VMA_SHARED))
		return INVALID(e, "a private mapping of a shared segment");
	if (!aligned(v->offset) || v->offset > INT64_MAX - (v->end - v->start))
		return INVALID(e, "impossible offset");
	if (v->name && strlen(v->name) > 256)
		return INVALID(e, "a name that is too long");
	return backed ? inode_validate(r, v->inode, e) : 0;
}

static int check_vmas(const struct restart *r, const Reprise__Mm *mm, struct error *e)
{
	uint64_t below = 0;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Reprise__Vma *v = mm->vmas[i];
		int n = check_vma(r, v, below, e);

		if (n >= 0)
			n = check_huge(v, e);
		if (n < 0)
			return error_object(e, n, "mapping %lx-%lx", (unsigned long)v->start,
					    (unsigned long)v->end);
		below = v->end;
	}
	if (below > mm_end(mm))
		return INVALID(e, "mappings beyond the end of a 32-bit program");
	return 0;
}

/* vvar and vdso adjoin, in this order, and there are no others. The code may be missing, of 64-bit
 * programs. */
static int check_vdso(const struct restart *r, const Reprise__Mm *mm, struct error *e)
{
	uint64_t first = 0, code = 0, next = 0;
	struct mm_vdso of_image;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Reprise__Vma *v = mm->vmas[i];

		if (v->kind != VMA_VVAR && v->kind != VMA_VDSO)
			continue;
		if (code || (next && v->start != next))
			return INVALID(e, "the vDSO is in pieces");
		if (!first)
			first = v->start;
		if (v->kind == VMA_VDSO)
			code = v->start;
		next = v->end;
	}
	if (mm->vvar != first || mm->vdso != code || (code && !first))
		return INVALID(e, "the vDSO is not where it is said to be");
	if (first && !code &&
	    (mm->compat || !mm_vdso_in_image(r, false, &of_image) ||
	     next - first != of_image.vdso - of_image.vvar))
		return INVALID(e, "the data of the vDSO is not that of the image");
	if (code && (!mm_vdso_in_image(r, mm->compat, &of_image) ||
		     code - first != of_image.vdso - of_image.vvar || next - code != of_image.len ||
		     code - first < PAGE_BYTES))
		return INVALID(e, "the vDSO is not that of the image");
	return 0;
}

/* May pages of that kind stand there? */
static int check_place(const Reprise__Mm *mm, const Reprise__PageRange *range, struct error *e)
{
	uint64_t at = range->start, end = range->start + range->length, to;

	while (at < end) {
		const Reprise__Vma *v = mm_vma_at(mm, at);

		if (!v || !vma_keeps_pages(v))
			return INVALID(e, "pages at %#lx, where none can be", (unsigned long)at);
		/* it may go on into the next mapping, or come from the one before */
		to = end < v->end ? end : v->end;
		if (v->page_size && (at % v->page_size || to % v->page_size))
			return INVALID(e, "parts of huge pages at %#lx", (unsigned long)at);
		at = to;
	}
	return 0;
}

static int check_pages(const Reprise__Mm *mm, struct error *e)
{
	uint64_t below = 0;
	uint32_t stage = 0;

	for (size_t i = 0; i < mm->n_pages; i++) {
		const Reprise__PageRange *range = mm->pages[i];
		int n;

		if (range->stage < stage || range->stage > mm->last_stage)
			return INVALID(e, "stages of pages out of order");
		if (range->stage > stage)
			below = 0;
		stage = range->stage;
		if (!aligned(range->start) || !aligned(range->length) || !range->length ||
		    range->start < below || range->length > USER_SPACE_END - range->start ||
		    range->start > USER_SPACE_END)
			return INVALID(e, "impossible pages at %#lx", (unsigned long)range->start);
		below = range->start + range->length;
		if (range->kind < PAGE_OWN || range->kind > PAGE_DROPPED ||
		    (stage && range->kind == PAGE_INHERITED) ||
		    (range->kind == PAGE_INHERITED && !mm->parent))
			return INVALID(e, "pages of kind %u at %#lx", range->kind,
				       (unsigned long)range->start);
		n = check_place(mm, range, e);
		if (n < 0)
			return n;
	}
	return 0;
}

static int check_mm(const struct restart *r, const Reprise__Mm *mm, size_t processes,
		    struct error *e)
{
	int n;

	if (mm->last_stage > processes || mm->parent_stage > processes)
		return INVALID(e, "more stages than processes");
	if (mm->auxv.len > 4096 || mm->future_lock & ~(uint32_t)(MCL_FUTURE | MCL_ONFAULT))
		return INVALID(e, "impossible fields");
	n = mm->exe ? inode_validate(r, mm->exe, e) : 0;
	if (n >= 0)
		n = check_vmas(r, mm, e);
	if (n >= 0)
		n = check_vdso(r, mm, e);
	return n < 0 ? n : check_pages(mm, e);
}

/* ---- relations ---- */

struct owner {
	uint64_t mm;
	size_t index;
	const Reprise__Process *process;
};

static int by_mm(const void *a, const void *b)
{
	const struct owner *x = a, *y = b;

	if (x->mm != y->mm)
		return x->mm < y->mm ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

struct owners {
	struct owner *v;
	size_t n, cap;
};

static int list_owners(const struct restart *r, struct owners *ret)
{
	const Reprise__Process *p;

	for (size_t i = 0; (p = restart_nth(r, RECORD_PROCESS, i, NULL)); i++) {
		struct owner *o;

		if (p->zombie || !p->mm)
			continue;
		o = vec_push(ret);
		if (!o)
			return -ENOMEM;
		*o = (struct owner){p->mm, i, p};
	}
	if (ret->n)
		qsort(ret->v, ret->n, sizeof(*ret->v), by_mm);
	return 0;
}

/* The first process that has an address space, NULL if there is none. */
static const Reprise__Process *owner_of(const struct owners *owners, uint64_t mm)
{
	size_t low = bisect(owners->n, i, owners->v[i].mm >= mm);

	return low < owners->n && owners->v[low].mm == mm ? owners->v[low].process : NULL;
}

/* Pages are inherited from the real parent alone, whose records stand before: so there are no
 * cycles. */
static int check_parent(const struct restart *r, const struct owners *owners, uint64_t id,
			const Reprise__Mm *mm, struct error *e)
{
	const Reprise__Mm *from = restart_find(r, RECORD_MM, mm->parent);
	const Reprise__Process *owner = owner_of(owners, id);
	const Reprise__Process *parent = owner_of(owners, mm->parent);
	struct span_vec alike = {};
	int n = 0;

	if (!from || !owner || !parent || owner->ppid != parent->pid || from == mm)
		return INVALID(e, "inherits pages of what is not its parent");
	if (from->exe != mm->exe || from->compat != mm->compat || from->vdso != mm->vdso ||
	    from->vvar != mm->vvar)
		return INVALID(e, "inherits pages of another program");
	if (mm->parent_stage > from->last_stage)
		return INVALID(e, "inherits pages of a stage that does not come");
	if (mm_alike(from, mm, &alike) < 0)
		n = error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for an address space");
	for (size_t i = 0; n >= 0 && i < mm->n_pages; i++) {
		const Reprise__PageRange *range = mm->pages[i];

		if (range->kind == PAGE_INHERITED &&
		    !spans_hold(&alike, range->start, range->start + range->length))
			n = INVALID(e, "inherits pages at %#lx, where the parent has none",
				    (unsigned long)range->start);
	}
	vec_free(&alike);
	return n;
}

int mm_restart_validate(const struct restart *r, struct error *e)
{
	struct owners owners = {};
	const Reprise__Mm *mm;
	uint64_t id;
	int n = list_owners(r, &owners);

	if (n < 0)
		error_errno(e, n, E_NO_MEMORY, "no memory for the list of processes");
	for (size_t i = 0; n >= 0 && (mm = restart_nth(r, RECORD_MM, i, &id)); i++) {
		n = check_mm(r, mm, owners.n, e);
		if (n >= 0 && mm->parent)
			n = check_parent(r, &owners, id, mm, e);
		if (n < 0)
			error_object(e, n, "address space %lu", (unsigned long)id);
	}
	vec_free(&owners);
	return n;
}
