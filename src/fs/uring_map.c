/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of the rings, mapped where each process had it. The kernel lets nobody say where that
 * is, neither mmap(2) nor mremap(2) (io_uring_get_unmapped_area()): it takes the place that suits
 * it. So for a moment there is one place only: everything else that is free is taken by mappings
 * without access, which cost nothing.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/file_kinds.h"
#include "fs/send_fds.h"
#include "fs/uring.h"
#include "mm/calls.h"
#include "mm/vma.h"

/* Below this the kernel places nothing by itself (vm.mmap_min_addr). */
#define LOWEST 0x10000ul

/* A ring as a process has it for the time of the mapping. */
struct ring_there {
	uint64_t id;
	int fd;
};

struct placing {
	struct calls calls;
	struct restart *r;
	struct restart_process *p;
	VEC(struct ring_there) rings;
	VEC(struct span) gaps;
};

static void placing_free(struct placing *x)
{
	calls_free(&x->calls);
	vec_free(&x->rings);
	vec_free(&x->gaps);
}

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for an io_uring");
}

static bool of_ring(const Reprise__Vma *v)
{
	return v->kind == VMA_IO_URING;
}

static int bring_rings(struct placing *x, struct error *e)
{
	for (size_t i = 0; i < x->p->mm->n_vmas; i++) {
		const Reprise__Vma *v = x->p->mm->vmas[i];
		struct ring_there *slot;
		bool known = false;
		int r;

		if (!of_ring(v))
			continue;
		vec_for_each (ring, &x->rings)
			known |= ring->id == v->ring;
		if (known)
			continue;
		slot = vec_push(&x->rings);
		if (!slot)
			return no_memory(e);
		slot->id = v->ring;
		r = give_fd(x->r, &x->p->tasks.v[0], files_restart_fd(x->r, v->ring), &slot->fd, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_gap(struct placing *x, uint64_t start, uint64_t end)
{
	struct span *s = start < end ? vec_push(&x->gaps) : NULL;

	if (s)
		*s = (struct span){start, end};
	return s || start >= end ? 0 : -ENOMEM;
}

static int find_gaps(struct placing *x, struct error *e)
{
	_cleanup_(vma_list_free) struct vma_list list = {};
	uint64_t at = LOWEST;
	int r = (int)procfs_read(x->r->proc_fd, &list.text, e, "%d/maps", x->p->pid);

	if (r < 0)
		return r;
	if (vma_parse(list.text, &list) < 0)
		return error_set(e, -EINVAL, E_INTERNAL, "/proc/%d/maps is not understood",
				 x->p->pid);
	r = 0;
	vec_for_each (v, &list.vmas) {
		if (r >= 0 && v->start < USER_SPACE_END)
			r = add_gap(x, at, v->start);
		if (v->end > at)
			at = v->end;
	}
	if (r >= 0)
		r = add_gap(x, at, USER_SPACE_END);
	return r < 0 ? no_memory(e) : 0;
}

static int close_gaps(struct placing *x, struct error *e)
{
	vec_for_each (s, &x->gaps) {
		int r;

		calls_place(&x->calls, "mmap", s->start, s->end, SYS_mmap, VAL(s->start),
			    VAL(s->end - s->start), VAL(PROT_NONE),
			    VAL(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE),
			    VAL(-1), VAL(0));
		r = calls_bound(&x->calls, e);
		if (r < 0)
			return r;
	}
	return calls_run(&x->calls, e);
}

static int fd_of(const struct placing *x, uint64_t id)
{
	vec_for_each (ring, &x->rings)
		if (ring->id == id)
			return ring->fd;
	return -1;
}

static int map_rings(struct placing *x, struct error *e)
{
	for (size_t i = 0; i < x->p->mm->n_vmas; i++) {
		const Reprise__Vma *v = x->p->mm->vmas[i];
		uint64_t size = v->end - v->start;
		int r;

		if (!of_ring(v))
			continue;
		calls_add(&x->calls, "munmap", v->start, v->end, SYS_munmap, VAL(v->start),
			  VAL(size));
		calls_place(&x->calls, "mmap of io_uring", v->start, v->end, SYS_mmap, VAL(0),
			    VAL(size), VAL(v->prot), VAL(MAP_SHARED), VAL(fd_of(x, v->ring)),
			    VAL(v->offset));
		r = calls_bound(&x->calls, e);
		if (r < 0)
			return r;
	}
	return calls_run(&x->calls, e);
}

static int open_gaps(struct placing *x, struct error *e)
{
	size_t i = 0;

	/* Both are sorted, and the rings stand in the gaps. */
	vec_for_each (s, &x->gaps) {
		uint64_t at = s->start;
		int r = 0;

		while (at < s->end && r >= 0) {
			const Reprise__Vma *v;
			uint64_t end = s->end;

			while (i < x->p->mm->n_vmas &&
			       (!of_ring(x->p->mm->vmas[i]) || x->p->mm->vmas[i]->end <= at))
				i++;
			v = i < x->p->mm->n_vmas ? x->p->mm->vmas[i] : NULL;
			if (v && v->start < end)
				end = v->start;
			if (at < end)
				calls_add(&x->calls, "munmap", at, end, SYS_munmap, VAL(at),
					  VAL(end - at));
			at = v && v->start < s->end ? v->end : s->end;
			r = calls_bound(&x->calls, e);
		}
		if (r < 0)
			return r;
	}
	vec_for_each (ring, &x->rings)
		calls_add(&x->calls, "close", 0, 0, SYS_close, VAL(ring->fd));
	return calls_run(&x->calls, e);
}

static int map_all_in(struct restart *r, struct restart_process *p, struct error *e)
{
	_cleanup_(placing_free) struct placing x = {.calls = {.r = r, .p = p}, .r = r, .p = p};
	int res = bring_rings(&x, e);

	if (res < 0 || !x.rings.n)
		return res;
	res = find_gaps(&x, e);
	if (res >= 0)
		res = close_gaps(&x, e);
	if (res >= 0)
		res = map_rings(&x, e);
	return res < 0 ? res : open_gaps(&x, e);
}

int uring_map_all(struct restart *r, struct error *e)
{
	int res = 0;

	vec_for_each (p, &r->processes)
		if (res >= 0 && p->mm && p->mm_owner)
			res = map_all_in(r, p, e);
	return res;
}
