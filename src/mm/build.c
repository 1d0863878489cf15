/* SPDX-License-Identifier: Apache-2.0 */
#include <asm/prctl.h>
#include <errno.h>
#include <linux/prctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "mm/aio.h"
#include "mm/build.h"
#include "mm/calls.h"
#include "mm/keys.h"
#include "mm/layout.h"
#include "mm/mm.h"
#include "mm/pagemap.h"
#include "mm/vma.h"

/*
 * Turns the address space of a stub into the saved one, but for contents and for
 * what would be in the way of filling and forking (finish.c).
 *
 * A stub whose pages all come from the image is emptied first. One that inherits pages keeps the
 * mappings that its parent has alike, and in them the pages that are listed as inherited; the
 * parent has been built before, so that what it has is known from its record.
 */
struct build {
	struct calls calls;
	struct restart *r;
	struct restart_process *p;
	const Reprise__Mm *have; /* the parent's, NULL: nothing */
	const Reprise__Mm *want;
	struct span_vec keep;  /* in both, sorted */
	struct span_vec fresh; /* to be mapped: each within one mapping of `want` */
};

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the layout of an address space");
}

static void build_free(struct build *b)
{
	calls_free(&b->calls);
	vec_free(&b->keep);
	vec_free(&b->fresh);
}

/* Everything but the agent goes. */
static void empty(struct build *b)
{
	uint64_t at = agent_address(b->p->agent), above = at + AGENT_SIZE;
	uint64_t end = mm_end(b->p->mm);

	calls_add(&b->calls, "munmap", 0, at, __NR_munmap, VAL(0), VAL(at));
	calls_add(&b->calls, "munmap", above, end, __NR_munmap, VAL(above), VAL(end - above));
}

int mm_restart_empty(struct restart *r, struct restart_process *p, struct error *e)
{
	_cleanup_(build_free) struct build b = {.calls = {.r = r, .p = p}, .r = r, .p = p};

	empty(&b);
	return calls_run(&b.calls, e);
}

/* The parts of [start, end) that no span covers. `at` moves on along the spans, which are sorted as
 * the ranges are. */
static int subtract(uint64_t start, uint64_t end, const struct span_vec *spans, size_t *at,
		    struct span_vec *ret)
{
	while (*at < spans->n && spans->v[*at].end <= start)
		(*at)++;
	for (size_t i = *at; start < end; i++) {
		uint64_t stop = i < spans->n && spans->v[i].start < end ? spans->v[i].start : end;

		if (start < stop) {
			struct span *s = vec_push(ret);

			if (!s)
				return -ENOMEM;
			*s = (struct span){start, stop};
		}
		if (stop == end)
			break;
		start = spans->v[i].end;
	}
	return 0;
}

static int subtract_all(const Reprise__Mm *mm, const struct span_vec *spans, struct span_vec *ret)
{
	size_t at = 0;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < mm->n_vmas; i++)
		r = subtract(mm->vmas[i]->start, mm->vmas[i]->end, spans, &at, ret);
	return r;
}

/* ---- what is inherited ---- */

/*
 * Pages that the parent holds and this process does not: dropped, so that the parts are as they
 * were when they were mapped.
 */
static int drop_others(struct build *b, struct error *e)
{
	struct span_vec alike = {}, kept = {}, drop = {};
	size_t at = 0;
	int r = mm_alike(b->have, b->want, &alike);

	for (size_t i = 0; r >= 0 && i < b->want->n_pages; i++) {
		const Reprise__PageRange *range = b->want->pages[i];
		struct span *s;

		if (range->kind != PAGE_INHERITED)
			continue;
		s = vec_push(&kept);
		if (s)
			*s = (struct span){range->start, range->start + range->length};
		else
			r = -ENOMEM;
	}
	vec_for_each (s, &alike)
		if (r >= 0)
			r = subtract(s->start, s->end, &kept, &at, &drop);
	if (r < 0)
		no_memory(e);
	vec_for_each (s, &drop) {
		calls_add(&b->calls, "madvise(MADV_DONTNEED)", s->start, s->end, __NR_madvise,
			  VAL(s->start), VAL(s->end - s->start), VAL(MADV_DONTNEED));
		if (r >= 0)
			r = calls_bound(&b->calls, e);
	}
	vec_free(&alike);
	vec_free(&kept);
	vec_free(&drop);
	return r;
}

static int protect_kept(struct build *b, struct error *e)
{
	vec_for_each (s, &b->keep) {
		const Reprise__Vma *old = mm_vma_at(b->have, s->start);
		const Reprise__Vma *new = mm_vma_at(b->want, s->start);
		int r;

		if (old->prot == new->prot)
			continue;
		calls_add(&b->calls, "mprotect", s->start, s->end, __NR_mprotect, VAL(s->start),
			  VAL(s->end - s->start), VAL(new->prot));
		r = calls_bound(&b->calls, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int inherit(struct build *b, struct error *e)
{
	struct span_vec unmap = {};
	int r = mm_keepable(b->have, b->want, &b->keep);

	if (r >= 0)
		r = subtract_all(b->have, &b->keep, &unmap);
	if (r < 0)
		no_memory(e);
	vec_for_each (s, &unmap) {
		calls_add(&b->calls, "munmap", s->start, s->end, __NR_munmap, VAL(s->start),
			  VAL(s->end - s->start));
		if (r >= 0)
			r = calls_bound(&b->calls, e);
	}
	vec_free(&unmap);
	if (r >= 0)
		r = protect_kept(b, e);
	return r < 0 ? r : drop_others(b, e);
}

/* ---- the vDSO ---- */

/*
 * arch_prctl(ARCH_MAP_VDSO_*) takes the address for a hint, and is possible only while no vDSO is
 * mapped: all else comes after it. mremap() to the same size changes nothing and tells whether the
 * code came to stand there.
 */
static void map_vdso(struct build *b, uint64_t vvar)
{
	const struct mm_vdso *own = &mm_width_of(b->r, b->want)->own;
	uint64_t vdso = vvar + (own->vdso - own->vvar);

	calls_add(&b->calls, "arch_prctl(ARCH_MAP_VDSO)", vvar, vdso + own->len, __NR_arch_prctl,
		  VAL(b->want->compat ? ARCH_MAP_VDSO_32 : ARCH_MAP_VDSO_64), VAL(vvar));
	calls_place(&b->calls, "mremap", vdso, vdso + own->len, __NR_mremap, VAL(vdso),
		    VAL(own->len), VAL(own->len), VAL(0));
	if (!b->want->vdso) /* the program had unmapped it */
		calls_add(&b->calls, "munmap", vdso, vdso + own->len, __NR_munmap, VAL(vdso),
			  VAL(own->len));
}

static void make_vdso(struct build *b)
{
	const struct mm_width *width = mm_width_of(b->r, b->want);

	if (width->own.vdso && width->foreign_vdso && b->want->vdso)
		map_vdso(b, width->free_vdso);
	else if (b->want->vvar && !width->foreign_vdso)
		map_vdso(b, b->want->vvar);
}

/* ---- mappings ---- */

static int map_flags(const Reprise__Vma *v)
{
	int flags = MAP_FIXED_NOREPLACE;

	if (v->kind == VMA_DROPPABLE) /* a type of its own, beside private and shared */
		return flags | MAP_DROPPABLE | MAP_ANONYMOUS;
	flags |= v->flags & VMA_SHARED ? MAP_SHARED : MAP_PRIVATE;
	if (!v->inode)
		flags |= MAP_ANONYMOUS;
	if (v->flags & VMA_GROWSDOWN)
		flags |= MAP_GROWSDOWN;
	if (v->flags & VMA_NORESERVE)
		flags |= MAP_NORESERVE;
	if (v->kind == VMA_HUGE_ANON)
		flags |= MAP_HUGETLB | __builtin_ctzll(v->page_size) << MAP_HUGE_SHIFT;
	return flags;
}

/*
 * Large pages that have nothing but contents are advised to be that before they are filled, and
 * come as such. The rest of the mapping follows when it has been filled (finish.c): a large page
 * there would bring memory to places that the application never touched.
 */
static int advise_huge(struct build *b, const Reprise__Vma *v, struct error *e)
{
	const uint64_t huge = 2ul << 20;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < b->want->n_pages; i++) {
		const Reprise__PageRange *range = b->want->pages[i];
		uint64_t start = range->start, end = range->start + range->length;

		if (range->kind != PAGE_OWN)
			continue;
		start = ((start > v->start ? start : v->start) + huge - 1) & -huge;
		end = (end < v->end ? end : v->end) & -huge;
		if (start < end)
			calls_add(&b->calls, "madvise", start, end, __NR_madvise, VAL(start),
				  VAL(end - start), VAL(MADV_HUGEPAGE));
		r = calls_bound(&b->calls, e);
	}
	return r;
}

static void map_one(struct build *b, const Reprise__Vma *v, const struct span *s, int fd)
{
	uint64_t offset = v->inode ? v->offset + (s->start - v->start) : 0;
	uint32_t prot = v->flags & VMA_ACCOUNTED ? v->prot | PROT_WRITE : v->prot;

	calls_place(&b->calls, "mmap", s->start, s->end, __NR_mmap, VAL(s->start),
		    VAL(s->end - s->start), VAL(prot), VAL(map_flags(v)), VAL(fd), VAL(offset));
	if (prot != v->prot)
		calls_add(&b->calls, "mprotect", s->start, s->end, __NR_mprotect, VAL(s->start),
			  VAL(s->end - s->start), VAL(v->prot));
	if (v->flags & VMA_NOHUGEPAGE)
		calls_add(&b->calls, "madvise", s->start, s->end, __NR_madvise, VAL(s->start),
			  VAL(s->end - s->start), VAL(MADV_NOHUGEPAGE));
}

static bool made_by_kernel(const Reprise__Vma *v)
{
	return v->kind == VMA_VVAR || v->kind == VMA_VDSO;
}

static bool of_file(const Reprise__Vma *v)
{
	return v->kind == VMA_FILE;
}

static bool opened_for_writing(const Reprise__Vma *v)
{
	return (v->flags & VMA_SHARED) && v->write_open;
}

/* The files that a series of mappings needs, as they are numbered here and in the task. */
struct file_set {
	struct {
		uint64_t inode;
		bool write;
	} of[FILES_AT_ONCE];
	int local[FILES_AT_ONCE], remote[FILES_AT_ONCE];
	size_t n;
};

static int file_index(const struct file_set *set, uint64_t inode, bool write)
{
	for (size_t i = 0; i < set->n; i++)
		if (set->of[i].inode == inode && set->of[i].write == write)
			return (int)i;
	return -1;
}

static int add_file(struct build *b, struct file_set *set, uint64_t inode, bool write,
		    struct error *e)
{
	int r;

	if (file_index(set, inode, write) >= 0)
		return 0;
	r = mm_mapped_file(b->r, inode, write, &set->local[set->n], e);
	if (r < 0)
		return r;
	set->of[set->n].inode = inode;
	set->of[set->n++].write = write;
	return 0;
}

/* Opens the files of the mappings from `from` on; *ret_to is where there are too many for one
 * message. */
static int gather_files(struct build *b, struct file_set *set, size_t from, size_t *ret_to,
			struct error *e)
{
	size_t i;

	for (i = from; i < b->fresh.n && set->n < FILES_AT_ONCE; i++) {
		const Reprise__Vma *v = mm_vma_at(b->want, b->fresh.v[i].start);
		int r;

		if (!of_file(v))
			continue;
		r = add_file(b, set, v->inode, opened_for_writing(v), e);
		if (r < 0)
			return error_object(e, r, "mapping %lx-%lx", (unsigned long)v->start,
					    (unsigned long)v->end);
	}
	*ret_to = i;
	return 0;
}

static int map_series(struct build *b, const struct file_set *set, size_t from, size_t to,
		      struct error *e)
{
	for (size_t i = from; i < to; i++) {
		const struct span *s = &b->fresh.v[i];
		const Reprise__Vma *v = mm_vma_at(b->want, s->start);
		int fd = -1, r;

		if (made_by_kernel(v) || v->kind == VMA_SYSV || vma_of_ring(v->kind) ||
		    v->kind == VMA_AIO)
			continue;
		if (of_file(v))
			fd = set->remote[file_index(set, v->inode, opened_for_writing(v))];
		map_one(b, v, s, fd);
		r = v->flags & VMA_HUGEPAGE ? advise_huge(b, v, e) : 0;
		if (r >= 0)
			r = calls_bound(&b->calls, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * The fields that /proc/PID/stat and ps show, the heap's bounds and the executable. All at once,
 * which needs no privilege; the executable is apart, since it does need some (a user namespace of
 * one's own, or CAP_CHECKPOINT_RESTORE), and comes after the mappings of the old one have gone
 * (EBUSY else).
 */
static void set_fields(struct build *b, int exe_fd)
{
	const Reprise__Mm *mm = b->want;
	struct prctl_mm_map map = {
		.start_code = mm->start_code,
		.end_code = mm->end_code,
		.start_data = mm->start_data,
		.end_data = mm->end_data,
		.start_brk = mm->start_brk,
		.brk = mm->brk,
		.start_stack = mm->start_stack,
		.arg_start = mm->arg_start,
		.arg_end = mm->arg_end,
		.env_start = mm->env_start,
		.env_end = mm->env_end,
		.auxv_size = (uint32_t)mm->auxv.len,
		.exe_fd = (uint32_t)-1,
	};
	struct batch *batch = &b->calls.batch;
	uint32_t auxv = batch_data(batch, mm->auxv.data, (uint32_t)mm->auxv.len);

	for (int with_exe = 0; with_exe < (exe_fd >= 0 ? 2 : 1); with_exe++) {
		uint32_t at;

		if (with_exe)
			map.exe_fd = (uint32_t)exe_fd;
		at = batch_data(batch, &map, sizeof(map));
		batch_pointer(batch, at + (uint32_t)offsetof(struct prctl_mm_map, auxv), auxv);
		calls_try(&b->calls,
			  with_exe ? "prctl(PR_SET_MM_MAP) of the executable"
				   : "prctl(PR_SET_MM_MAP)",
			  0, 0, with_exe ? -EPERM : 0, __NR_prctl, VAL(PR_SET_MM),
			  VAL(PR_SET_MM_MAP), DATA(at), VAL(sizeof(map)), VAL(0));
	}
}

/*
 * A stub that was forked from a process that is built already runs the same
 * program. That must not be said again: its file is mapped (EBUSY).
 */
static bool has_exe(const struct build *b, int fd)
{
	char path[64];
	struct stat is, wanted;

	snprintf(path, sizeof(path), "%d/exe", b->p->pid);
	return fstatat(b->r->proc_fd, path, &is, 0) == 0 && fstat(fd, &wanted) == 0 &&
	       is.st_ino == wanted.st_ino && is.st_dev == wanted.st_dev;
}

static int map_all(struct build *b, struct error *e)
{
	bool new_exe = b->want->exe && !(b->have && b->have->exe == b->want->exe);
	size_t from = 0, to = 0;

	do {
		struct file_set set = {};
		int r = 0, exe = -1;
		bool last;

		/* Not between the executable, which stands first in the set, and the others. */
		mm_mapped_files_bound(b->r);
		if (from == 0 && new_exe)
			r = add_file(b, &set, b->want->exe, false, e);
		if (r >= 0)
			r = gather_files(b, &set, from, &to, e);
		if (r >= 0 && set.n)
			r = restart_send_fds(b->r, &b->p->tasks.v[0], set.local, set.n, set.remote,
					     e);
		if (r >= 0)
			r = map_series(b, &set, from, to, e);
		if (r < 0)
			return r;
		last = to == b->fresh.n;
		if (from == 0 && new_exe && !has_exe(b, set.local[0]))
			exe = set.remote[0];
		if (from == 0)
			set_fields(b, exe);
		for (size_t i = 0; i < set.n; i++)
			calls_add(&b->calls, "close", 0, 0, __NR_close, VAL(set.remote[i]));
		from = to;
		if (last)
			break;
	} while (true);
	return 0;
}

/* ---- one address space ---- */

int mm_restart_build(struct restart *r, struct restart_process *p, struct error *e)
{
	_cleanup_(build_free) struct build b = {
		.calls = {.r = r, .p = p}, .r = r, .p = p, .want = p->mm};
	int n = 0;

	keys_build(&b.calls);
	if (p->mm->parent) {
		b.have = restart_find(r, RECORD_MM, p->mm->parent);
		n = inherit(&b, e);
	} else {
		empty(&b);
		make_vdso(&b);
	}
	if (n >= 0 && subtract_all(b.want, &b.keep, &b.fresh) < 0)
		n = no_memory(e);
	if (n >= 0)
		n = mm_sysv_build(&b.calls, b.want, &b.fresh, e);
	if (n >= 0)
		n = map_all(&b, e);
	if (n >= 0)
		n = calls_run(&b.calls, e);
	if (n >= 0)
		n = aio_restart(r, p, e);
	if (n >= 0 && !p->mm->parent)
		n = mm_vdso_restart(r, p, e);
	return n < 0 ? error_object(e, n, "task %d", p->vpid) : 0;
}
