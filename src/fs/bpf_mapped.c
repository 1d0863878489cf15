/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings of BPF maps. All look the same in /proc: only the kernel's memory leads from one to its
 * open file. They are made anew when the maps have their contents, which come with these.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "fs/bpf_map.h"
#include "fs/context.h"
#include "fs/file_kinds.h"
#include "fs/send_fds.h"
#include "fs/userfaultfd.h"
#include "mm/calls.h"
#include "mm/state.h"
#include "mm/vma.h"

/* The struct file of a mapping. */
static int file_of(struct kernel_memory *k, pid_t tid, uint64_t start, uint64_t *ret)
{
	uint64_t mm, vma;
	int r = userfaultfd_mm(k, tid, &mm);

	if (r >= 0)
		r = userfaultfd_vma(k, mm, start, &vma);
	return r < 0 ? r : kernel_member(k, vma, "vm_area_struct", "vm_file", ret, sizeof(*ret));
}

static bool is_file(struct kernel_memory *k, const struct file_entry *f, uint64_t file)
{
	_cleanup_(close_fd) int pidfd = files_pidfd(f->tid);
	_cleanup_(close_fd) int fd =
		pidfd < 0 ? -EBADF : (int)syscall(SYS_pidfd_getfd, pidfd, f->fd, 0);
	uint64_t is = 0;

	return fd >= 0 && kernel_file(k, fd, &is) >= 0 && is == file;
}

static bool is_arena(const struct checkpoint *c, const struct file_entry *f)
{
	uint64_t same = f->msg->bpf_map->same_as;
	const struct file_entry *first = same ? file_entry_by_id(c, same) : f;

	return first && first->msg->bpf_map->type == BPF_MAP_ARENA;
}

static int find(struct checkpoint *c, pid_t tid, Reprise__Vma *v, struct error *e)
{
	struct kernel_memory *k;
	uint64_t file = 0;
	bool arena = false;
	int r = files_kernel_memory(c, &k, e);

	if (r < 0)
		return r;
	r = file_of(k, tid, v->start, &file);
	if (r < 0)
		return error_errno(e, r, E_VMA_KIND,
				   "is memory of a BPF map, and it is not told of which");
	v->ring = 0;
	vec_for_each (f, &c->files->files)
		if (!v->ring && (*f)->ops == &bpf_map_file_ops && is_file(k, *f, file)) {
			v->ring = (*f)->id;
			arena = is_arena(c, *f);
		}
	if (!v->ring)
		return error_set(e, -EOPNOTSUPP, E_VMA_KIND,
				 "is memory of a BPF map that nobody in the tree has as a "
				 "descriptor, or that was refused");
	/* an arena is not inherited (arena_map_mmap()) */
	if (v->flags & ~(uint64_t)(VMA_SHARED | VMA_DONTDUMP | VMA_NORESERVE |
				   (arena ? VMA_DONTFORK : 0)) ||
	    v->pkey)
		return error_set(e, -EOPNOTSUPP, E_VMA_KIND,
				 "is memory of a BPF map with an advice (madvise) or a key");
	return 0;
}

int bpf_mapped_save(struct checkpoint *c, struct error *e)
{
	vec_for_each (m, &c->mm->mms)
		for (size_t i = 0; m->msg && i < m->msg->n_vmas; i++) {
			Reprise__Vma *v = m->msg->vmas[i];
			int r = v->kind == VMA_BPF_MAP ? find(c, m->tid, v, e) : 0;

			if (r < 0)
				error_object(e, r, "mapping %lx-%lx (BPF map) of task %d",
					     (unsigned long)v->start, (unsigned long)v->end,
					     m->tid);
			r = checkpoint_refuse(c, r, e);
			if (r < 0)
				return r;
		}
	return 0;
}

static int map_one(struct calls *calls, const Reprise__Vma *v, struct error *e)
{
	int fd = -1, r = give_fd(calls->r, &calls->p->tasks.v[0],
				 files_restart_fd(calls->r, v->ring), &fd, e);

	if (r < 0)
		return r;
	calls_place(calls, "mmap of a BPF map", v->start, v->end, SYS_mmap, VAL(v->start),
		    VAL(v->end - v->start), VAL(v->prot), VAL(MAP_SHARED | MAP_FIXED_NOREPLACE),
		    VAL(fd), VAL(v->offset));
	if (!(v->flags & VMA_DONTFORK)) /* as the kernel makes an arena */
		calls_add(calls, "madvise of a BPF map", v->start, v->end, SYS_madvise,
			  VAL(v->start), VAL(v->end - v->start), VAL(MADV_DOFORK));
	calls_add(calls, "close", 0, 0, SYS_close, VAL(fd));
	return calls_run(calls, e);
}

int bpf_mapped_restore(struct restart *r, struct error *e)
{
	vec_for_each (p, &r->processes) {
		_cleanup_(calls_free) struct calls calls = {.r = r, .p = p};

		for (size_t i = 0; p->mm && p->mm_owner && i < p->mm->n_vmas; i++) {
			int res = p->mm->vmas[i]->kind == VMA_BPF_MAP
					  ? map_one(&calls, p->mm->vmas[i], e)
					  : 0;

			if (res < 0)
				return res;
		}
	}
	return 0;
}
