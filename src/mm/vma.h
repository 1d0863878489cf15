/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_VMA_H
#define REPRISE_MM_VMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch/arch.h"
#include "core/error.h"
#include "core/vec.h"
#include "mm.pb-c.h"

#define PAGE_BYTES     4096ul
/* The last page below 2^47 is never mapped. Addresses above need five-level page tables and a
 * program that asks for them. */
#define USER_SPACE_END 0x7ffffffff000ul

/* The end of what a program of that width may map. */
static inline uint64_t mm_end(const Reprise__Mm *mm)
{
	return mm->compat ? ARCH_COMPAT_END : USER_SPACE_END;
}

/* What backs a mapping. Numbers stand in images: for ever. */
enum vma_kind {
	VMA_ANON = 1,	   /* private anonymous memory: heap, stacks, the rest */
	VMA_FILE = 2,	   /* an inode, private or shared; shared anonymous memory and memfds too */
	VMA_VVAR = 3,	   /* data pages of the vDSO, made by the kernel */
	VMA_VDSO = 4,	   /* its code */
	VMA_DROPPABLE = 5, /* MAP_DROPPABLE: contents may vanish at any time, and are not saved */
	VMA_HUGE_ANON = 6, /* private anonymous hugetlb memory */
	VMA_SYSV = 7,	   /* an attached System V segment */
	VMA_PACKET = 45,   /* the rings of a packet socket */
	VMA_IO_URING = 70, /* a ring or the requests of an io_uring */
	VMA_AIO = 71,	   /* the ring of a context of asynchronous I/O (io_setup) */
	VMA_BPF_MAP = 920, /* values of a BPF map */
	VMA_IGNORED = 1000, /* [vsyscall]: the same everywhere; never in an image */
};

/* For people and inspect: "anonymous", "file"... "unknown" for a number that is none. */
const char *vma_kind_name(uint32_t kind);

/* What was asked of a mapping beyond protection. Bits stand in images: for ever. */
enum vma_flag {
	VMA_SHARED = 1u << 0,
	VMA_GROWSDOWN = 1u << 1,
	VMA_LOCKED = 1u << 2,
	VMA_LOCKONFAULT = 1u << 3,
	VMA_DONTFORK = 1u << 4,
	VMA_WIPEONFORK = 1u << 5,
	VMA_DONTDUMP = 1u << 6,
	VMA_SEQUENTIAL = 1u << 7,
	VMA_RANDOM = 1u << 8,
	VMA_HUGEPAGE = 1u << 9,
	VMA_NOHUGEPAGE = 1u << 10,
	VMA_MERGEABLE = 1u << 11,
	VMA_NORESERVE = 1u << 12,
	VMA_SEALED = 1u << 13,
	VMA_ACCOUNTED = 1u << 14, /* not writable, but has been: counts as memory that may be
				     written, and merges with its like only */
	VMA_FLAGS_ALL = (1u << 15) - 1,
};

/* A mapping as /proc/PID/smaps tells of it. */
struct vma {
	uint64_t start, end, offset;
	uint64_t ino;
	uint32_t dev_major, dev_minor;
	uint32_t prot; /* PROT_* */
	bool shared;
	const char *name; /* as the kernel prints it, "" if it has none; points into the text */

	/* from the lines below the header */
	uint64_t page_size;
	uint32_t pkey;
	uint64_t anonymous_kb; /* own pages in memory */
	uint64_t swap_kb;
	uint64_t shared_kb;   /* mapped by others too: own pages after a fork, and pages of files */
	uint64_t huge_kb;     /* in transparent huge pages */
	uint64_t letters;     /* VmFlags: see vma_has() */
	const char *strange;  /* the first pair of letters that is unknown, or NULL */
	unsigned int unnamed; /* flags that the kernel has no letters for: "??" */
	uint32_t kind, flags; /* by vma_classify() */

	/* the same as `letters` and more, as the kernel has it, if that is known: see known.c */
	uint64_t raw;
	bool has_raw;
};

struct vma_list {
	VEC(struct vma) vmas;
	char *text;
};

/*
 * Takes apart the text of smaps, which it changes (names are terminated in place) and which
 * has to outlive the list. Pure. Returns 0, -EINVAL for what the kernel would never print, -ENOMEM.
 */
int vma_parse(char *text, struct vma_list *ret) must_check;
/* The flag without a name of locked memory is that of MLOCK_ONFAULT, as it was in kernels that have
 * no "lf". */
void vma_name_locks(struct vma_list *l);
void vma_list_free(struct vma_list *l); /* and the text */

/*
 * Decides kind and flags. What cannot be saved is refused with -EOPNOTSUPP; the
 * sentence says why, the caller names task and mapping.
 */
int vma_classify(struct vma *v, struct error *e) must_check;
bool vma_has(const struct vma *v, const char *letters);
void vma_forget(struct vma *v, const char *letters);

/* ---- mappings as they stand in records ---- */

/* Memory that a descriptor shares with the kernel, mapped when that is there (Vma.ring). */
static inline bool vma_of_ring(uint32_t kind)
{
	return kind == VMA_IO_URING || kind == VMA_PACKET || kind == VMA_BPF_MAP;
}

static inline bool vma_private(const Reprise__Vma *v)
{
	return !(v->flags & VMA_SHARED) && v->kind != VMA_VVAR && v->kind != VMA_VDSO;
}

/* May hold pages of its own, with contents that are saved with the address space? */
static inline bool vma_keeps_pages(const Reprise__Vma *v)
{
	return vma_private(v) && v->kind != VMA_DROPPABLE && v->kind != VMA_SYSV &&
	       !vma_of_ring(v->kind) && v->kind != VMA_AIO;
}

struct span {
	uint64_t start, end;
};
struct span_vec {
	struct span *v;
	size_t n, cap;
};

/* The mapping that holds an address, NULL if there is none. Mappings are sorted. */
const Reprise__Vma *mm_vma_at(const Reprise__Mm *mm, uint64_t address);

/*
 * The parts of two address spaces where a page of the one could, after a fork,
 * still stand in the other: private mappings in both, at the same addresses, of the same thing.
 * Both sides of an image compute this alike. Sorted, not merged across mappings of b.
 */
int mm_alike(const Reprise__Mm *a, const Reprise__Mm *b, struct span_vec *ret) must_check;
/* The same for mappings that a child may keep as its parent has them: shared ones too. */
int mm_keepable(const Reprise__Mm *a, const Reprise__Mm *b, struct span_vec *ret) must_check;
bool spans_hold(const struct span_vec *spans, uint64_t start, uint64_t end);

#endif
