/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "mm/build.h"
#include "mm/calls.h"
#include "mm/lazy.h"
#include "mm/mm.h"
#include "mm/pagemap.h"
#include "mm/pages.h"
#include "mm/vma.h"

/*
 * Contents, straight from the image into the stub, which stands still; the
 * image layer calls from several threads at once.
 */
struct fill {
	const struct restart_process *p;
	int mem_fd;
	bool overwrites; /* there may be other contents already: zero pages have to be written */
	const struct lazy_share *share; /* NULL: nothing is left for later */
	atomic_uint_fast64_t done;
};

static const uint8_t zeros[256 * 1024];

/* A part within one mapping. */
static int fill_part(const struct fill *f, const Reprise__Vma *v, uint64_t address,
		     const uint8_t *data, size_t len, struct error *e)
{
	/* fresh anonymous memory is zero, and stays untouched; elsewhere a file would show through
	 */
	if (!data && !v->inode && !f->overwrites)
		return 0;
	while (len) {
		size_t n = data || len < sizeof(zeros) ? len : sizeof(zeros);
		const uint8_t *from = data ? data : zeros;
		int r;

		if (v->prot & PROT_WRITE)
			r = pages_write(f->p->pid, address, from, n, e);
		else
			r = pages_force(f->mem_fd, address, from, n, e);
		if (r < 0)
			return r;
		address += n;
		len -= n;
		if (data)
			data += n;
	}
	return 0;
}

static int fill_run(void *arg, uint64_t address, const void *data, size_t len, struct error *e)
{
	struct fill *f = arg;

	while (len) {
		const Reprise__Vma *v = mm_vma_at(f->p->mm, address);
		bool later = false;
		size_t n;
		int r = 0;

		if (!v || !vma_keeps_pages(v))
			return error_set(e, -EINVAL, E_IMAGE_INVALID,
					 "contents at %#lx, where task %d has no memory of its own",
					 (unsigned long)address, f->p->vpid);
		n = v->end - address < len ? v->end - address : len;
		if (f->share)
			n = lazy_part(f->share, address, n, &later);
		if (!later) {
			r = fill_part(f, v, address, data, n, e);
			f->done += n;
		}
		if (r < 0)
			return error_object(e, r, "task %d", f->p->vpid);
		address += n;
		len -= n;
		if (data)
			data = (const uint8_t *)data + n;
	}
	return 0;
}

/* What was held for children that have been forked by now. */
static int drop(struct restart *r, struct restart_process *p, uint32_t stage, struct error *e)
{
	_cleanup_(calls_free) struct calls calls = {.r = r, .p = p};

	for (size_t i = 0; i < p->mm->n_pages; i++) {
		const Reprise__PageRange *range = p->mm->pages[i];
		int n;

		if (range->kind != PAGE_DROPPED || range->stage != stage)
			continue;
		calls_add(&calls, "madvise(MADV_DONTNEED)", range->start,
			  range->start + range->length, __NR_madvise, VAL(range->start),
			  VAL(range->length), VAL(MADV_DONTNEED));
		n = calls_bound(&calls, e);
		if (n < 0)
			return n;
	}
	return calls_run(&calls, e);
}

static int when(void *arg, uint64_t first, uint64_t end)
{
	const struct fill *f = arg;

	return lazy_when(f->share, first, end);
}

int mm_restart_fill(struct restart *r, struct restart_process *p, uint32_t stage, struct error *e)
{
	const struct page_group group = {p->mm_id, stage};
	_cleanup_(lazy_share_free) struct lazy_share share = {};
	_cleanup_(close_fd) int mem_fd = -EBADF;
	struct fill f = {.p = p, .overwrites = stage > 0};
	uint64_t expected = 0;
	int n = drop(r, p, stage, e);

	for (size_t i = 0; i < p->mm->n_pages; i++)
		if (p->mm->pages[i]->kind == PAGE_OWN && p->mm->pages[i]->stage == stage)
			expected += p->mm->pages[i]->length;
	if (n < 0 || !expected)
		return n;
	n = lazy_divide(r, p, stage, &share, e);
	if (n < 0)
		return n;
	mem_fd = procfs_open(r->proc_fd, O_RDWR | O_CLOEXEC, e, "%d/mem", p->pid);
	if (mem_fd < 0)
		return mem_fd;
	f.mem_fd = mem_fd;
	f.share = share.bytes ? &share : NULL;
	expected -= share.bytes;
	n = image_read_some(r->image, &group, f.share ? when : NULL, fill_run, &f, e);
	if (n >= 0 && f.done != expected)
		n = error_set(e, -EINVAL, E_IMAGE_INVALID,
			      "the image has other pages of task %d than it lists", p->vpid);
	return n;
}
