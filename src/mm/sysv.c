/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "fs/inode.h"
#include "mm/build.h"
#include "mm/calls.h"
#include "mm/layout.h"
#include "mm/vma.h"

/*
 * System V segments are attached, not mapped, so that they count as attached and
 * can be detached by address. A segment is attached as a whole, but parts of it may have been
 * unmapped or protected since, and other things may be where they were: it is attached at a place
 * that is free for sure, and what is left of it is moved from there (mremap() keeps it attached).
 */

/* Where the segment would begin, had it been attached as a whole there. */
static uint64_t begin_of(const Reprise__Vma *v)
{
	return v->start - v->offset;
}

static bool same_attachment(const Reprise__Vma *a, const Reprise__Vma *b)
{
	return a->kind == VMA_SYSV && b->kind == VMA_SYSV && a->inode == b->inode &&
	       begin_of(a) == begin_of(b) && a->write_open == b->write_open;
}

static int attached_prot(const Reprise__Vma *v, bool exec)
{
	return PROT_READ | (v->write_open ? PROT_WRITE : 0) | (exec ? PROT_EXEC : 0);
}

/* One attachment: the parts from fresh[first] on that belong to it. */
static int attach(struct calls *c, const Reprise__Mm *want, const struct span_vec *fresh,
		  size_t first, struct error *e)
{
	const Reprise__Vma *v = mm_vma_at(want, fresh->v[first].start);
	const Reprise__Inode *inode = restart_find(c->r, RECORD_INODE, v->inode);
	const struct mm_width *width = mm_width_of(c->r, want);
	uint64_t at = width->free_shm;
	uint64_t size = (inode->size + PAGE_BYTES - 1) & -PAGE_BYTES;
	int id = inode_sysv_shmid(c->r, v->inode);
	bool exec = v->prot & PROT_EXEC;
	int prot = attached_prot(v, exec);

	if (id < 0)
		return error_set(e, id, E_IMAGE_INVALID, "not a System V segment");
	if (!size || at + size > width->free_end)
		return error_set(e, -ENOMEM, E_RESTORE, "no room for a whole System V segment");
	calls_place(c, "shmat", at, at + size, __NR_shmat, VAL(id), VAL(at),
		    VAL((v->write_open ? 0 : SHM_RDONLY) | (exec ? SHM_EXEC : 0)));
	for (size_t i = first; i < fresh->n; i++) {
		const struct span *s = &fresh->v[i];
		const Reprise__Vma *part = mm_vma_at(want, s->start);
		uint64_t len = s->end - s->start, offset = s->start - begin_of(v);

		if (!same_attachment(v, part))
			continue;
		if (offset >= size || len > size - offset)
			return error_set(e, -EINVAL, E_IMAGE_INVALID,
					 "goes beyond its System V segment");
		calls_place(c, "mremap", s->start, s->end, __NR_mremap, VAL(at + offset), VAL(len),
			    VAL(len), VAL(MREMAP_MAYMOVE | MREMAP_FIXED), VAL(s->start));
		if ((int)part->prot != prot)
			calls_add(c, "mprotect", s->start, s->end, __NR_mprotect, VAL(s->start),
				  VAL(len), VAL(part->prot));
	}
	calls_add(c, "munmap", at, at + size, __NR_munmap, VAL(at), VAL(size));
	return calls_bound(c, e);
}

int mm_sysv_build(struct calls *c, const Reprise__Mm *want, const struct span_vec *fresh,
		  struct error *e)
{
	for (size_t i = 0; i < fresh->n; i++) {
		const Reprise__Vma *v = mm_vma_at(want, fresh->v[i].start);
		bool done = false;
		int r;

		if (v->kind != VMA_SYSV)
			continue;
		for (size_t j = 0; j < i && !done; j++)
			done = same_attachment(mm_vma_at(want, fresh->v[j].start), v);
		if (done)
			continue;
		r = attach(c, want, fresh, i, e);
		if (r < 0)
			return error_object(e, r, "mapping %lx-%lx", (unsigned long)v->start,
					    (unsigned long)v->end);
	}
	return 0;
}
