/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "mm/state.h"

/*
 * Which pages of an address space are mapped by others too. smaps counts them by
 * mapping, so that only where there are some is the page map read entry by entry; a bit in it tells
 * pages that are mapped only once (PM_MMAP_EXCLUSIVE).
 */
enum {
	ENTRIES_AT_ONCE = 4096,
	GAP = 512, /* pages between two ranges that are read in one go with them */
};

/* A place in swap, which relatives share as they share a page frame. */
#define FRAME_SWAPPED (1ull << 62)

static int no_memory(struct error *e)
{
	return error_errno(e, -ENOMEM, E_NO_MEMORY, "no memory for the pages of an address space");
}

static int take_entry(struct mm_state *m, uint64_t address, uint64_t entry, struct error *e)
{
	uint64_t frame = entry & PAGEMAP_FRAME;
	struct cow_page *page;

	if (entry & (PAGEMAP_EXCLUSIVE | PAGEMAP_GUARD | PAGEMAP_FILE))
		return 0;
	if (!(entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)))
		return 0;
	if (frame && (entry & PAGEMAP_SWAPPED))
		frame |= FRAME_SWAPPED;
	page = vec_push(&m->shared);
	if (!page)
		return no_memory(e);
	*page = (struct cow_page){address, frame};
	return 0;
}

/* Where reading that begins at `at`, in range i, goes on to: over ranges that are close to each
 * other. */
static uint64_t reading_end(const struct span_vec *ranges, size_t i, uint64_t at)
{
	const uint64_t most = at + ENTRIES_AT_ONCE * PAGE_BYTES;

	while (i + 1 < ranges->n && ranges->v[i].end < most &&
	       ranges->v[i + 1].start - ranges->v[i].end < GAP * PAGE_BYTES)
		i++;
	return ranges->v[i].end < most ? ranges->v[i].end : most;
}

static int read_ranges(int fd, struct mm_state *m, const struct span_vec *ranges, struct error *e)
{
	uint64_t entries[ENTRIES_AT_ONCE];
	uint64_t start = 0, end = 0; /* what is in there */

	for (size_t i = 0; i < ranges->n; i++) {
		for (uint64_t at = ranges->v[i].start; at < ranges->v[i].end; at += PAGE_BYTES) {
			int r = 0;

			if (at >= end) {
				start = at;
				end = reading_end(ranges, i, at);
				r = pagemap_entries(fd, start, entries, (end - start) / PAGE_BYTES,
						    e);
			}
			if (r >= 0)
				r = take_entry(m, at, entries[(at - start) / PAGE_BYTES], e);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* Where the page table holds contents, within some spans. */
static int contents_in(const struct page_spans *pages, const struct span_vec *spans,
		       struct span_vec *ret)
{
	size_t i = 0, j = 0;

	while (i < pages->n && j < spans->n) {
		const struct page_span *x = &pages->v[i];
		const struct span *y = &spans->v[j];
		uint64_t start = x->start > y->start ? x->start : y->start;
		uint64_t end = x->end < y->end ? x->end : y->end;

		if (start < end && !x->guard) {
			struct span *s = vec_push(ret);

			if (!s)
				return -ENOMEM;
			*s = (struct span){start, end};
		}
		if (x->end <= y->end)
			i++;
		else
			j++;
	}
	return 0;
}

int mm_frames(int fd, struct mm_state *m, struct error *e)
{
	struct span_vec ranges = {};
	int r = contents_in(&m->pages, &m->maybe_shared, &ranges);

	r = r < 0 ? no_memory(e) : read_ranges(fd, m, &ranges, e);
	vec_free(&ranges);
	return r;
}
