/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_PAGEMAP_H
#define REPRISE_MM_PAGEMAP_H

#include "mm/vma.h"

/* Kinds of PageRange. Numbers stand in images: for ever. */
enum page_kind {
	PAGE_OWN = 1,	    /* contents in the page group <mm, stage> */
	PAGE_INHERITED = 2, /* what the parent holds when it forks at parent_stage; stage 0 */
	PAGE_GUARD = 3,	    /* MADV_GUARD_INSTALL, when all else is done */
	PAGE_DROPPED = 4,   /* held for a child until `stage`, then given up */
};

/* A run of pages in a page table. */
struct page_span {
	uint64_t start, end;
	bool guard; /* else own contents, in memory or swapped out */
};

struct page_spans {
	struct page_span *v;
	size_t n, cap;
};

/*
 * The pages of the spans `where` (sorted, of private mappings) that hold contents of their own, and
 * guard pages. Pages of the file behind a private mapping, untouched ones and the shared zero page
 * are left out: they come back by themselves. fd: of /proc/PID/pagemap.
 */
int pagemap_scan(int fd, const struct span_vec *where, struct page_spans *ret,
		 struct error *e) must_check;
/* The same by reading the entries one by one: what kernels before 6.7 offer. */
int pagemap_read(int fd, const struct span_vec *where, struct page_spans *ret,
		 struct error *e) must_check;

/*
 * The same for one span of anonymous memory that is tracked (mm/track.h); and which of its pages
 * have not been written since they were looked at last. Needs PAGEMAP_SCAN.
 */
int pagemap_scan_tracked(int fd, const struct span *span, struct page_spans *ret,
			 struct span_vec *ret_unwritten, struct error *e) must_check;
/*
 * Finds the pages with contents, in a span of tracked anonymous memory, that have been written
 * since the last time, or are found for the first time; they are write-protected in the same
 * instant, page by page, so that the next write is seen again. Adds to ret. What could not be
 * looked at counts as written.
 */
int pagemap_take_written(int fd, const struct span *span, struct span_vec *ret,
			 struct error *e) must_check;

/*
 * Which pages of a span of tracked memory may have been written; ten times as fast, and on some
 * kernels blind where the page table itself is gone: a page that bears the mark tells that it is
 * not, for all within PAGEMAP_TABLE. Adds to ret. -EPERM: not all of it is tracked.
 */
int pagemap_find_written(int fd, const struct span *span, struct span_vec *ret) must_check;
/* The same of pages that are there only, at the speed of the others: of a terabyte that is only
 * reserved there is nothing. */
int pagemap_find_there(int fd, const struct span *span, struct span_vec *ret) must_check;
/* Is it not blind on this kernel? Tried out with memory of our own, MAP_PRIVATE or MAP_SHARED. */
bool pagemap_tells_holes(int proc_fd, int sharing);
/*
 * Of a mapping of which all has been protected (UFFDIO_WRITEPROTECT): all that bears no mark, pages
 * or not, is protected again, and told. Not where the page table itself is gone. Adds to ret; after
 * a failure it is not known what was protected.
 */
int pagemap_take_marks(int fd, const struct span *span, struct span_vec *ret) must_check;
bool pagemap_is_marked(int fd, uint64_t address);
#define PAGEMAP_TABLE (2ul << 20) /* aligned; what one page table maps */

/* Adds to the last one if they meet. -ENOMEM. */
int span_add(struct span_vec *to, uint64_t start, uint64_t end) must_check;

/* Is the mapping at an address tracked? */
bool pagemap_is_tracked(int fd, uint64_t address);

/* Bits of the entries of /proc/PID/pagemap. */
#define PAGEMAP_FRAME	  ((1ull << 55) - 1) /* all zero without CAP_SYS_ADMIN */
#define PAGEMAP_EXCLUSIVE (1ull << 56)
#define PAGEMAP_MARKED	  (1ull << 57) /* protected by a userfaultfd */
#define PAGEMAP_GUARD	  (1ull << 58)
#define PAGEMAP_FILE	  (1ull << 61)
#define PAGEMAP_SWAPPED	  (1ull << 62)
#define PAGEMAP_PRESENT	  (1ull << 63)
/* Entries of the n pages from `start` on. */
int pagemap_entries(int fd, uint64_t start, uint64_t *entries, size_t n,
		    struct error *e) must_check;

#endif
