/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/kabi.h"
#include "core/procfs.h"

enum { ENTRIES_AT_ONCE = 4096, REGIONS_AT_ONCE = 1024 };

static int failed(struct error *e, int r)
{
	return error_errno(e, r, r == -ESRCH ? E_TASK_GONE : E_VMA_READ,
			   "cannot read the page map");
}

static int add(struct page_spans *to, uint64_t start, uint64_t end, bool guard)
{
	struct page_span *last = to->n ? &to->v[to->n - 1] : NULL;

	if (last && last->end == start && last->guard == guard) {
		last->end = end;
		return 0;
	}
	last = vec_push(to);
	if (!last)
		return -ENOMEM;
	*last = (struct page_span){start, end, guard};
	return 0;
}

int pagemap_entries(int fd, uint64_t start, uint64_t *entries, size_t n, struct error *e)
{
	size_t done = 0, want = n * sizeof(*entries);

	while (done < want) {
		ssize_t r = pread(fd, (char *)entries + done, want - done,
				  (off_t)(start / PAGE_BYTES * sizeof(*entries) + done));

		if (r < 0 && errno == EINTR)
			continue;
		/* the end of the file comes early when the address space has gone */
		if (r <= 0)
			return failed(e, r ? -errno : -ESRCH);
		done += (size_t)r;
	}
	return 0;
}

/* Zero pages cannot be told from others here; they are found to be zero when they are read. */
static int read_range(int fd, uint64_t start, uint64_t end, struct page_spans *ret, struct error *e)
{
	uint64_t entries[ENTRIES_AT_ONCE];

	while (start < end) {
		size_t n = (end - start) / PAGE_BYTES;
		int r;

		if (n > ENTRIES_AT_ONCE)
			n = ENTRIES_AT_ONCE;
		r = pagemap_entries(fd, start, entries, n, e);
		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++, start += PAGE_BYTES) {
			uint64_t v = entries[i];

			/* a guard page has the swap bit as well */
			if (!(v & (PAGEMAP_GUARD | PAGEMAP_SWAPPED | PAGEMAP_PRESENT)))
				continue;
			if (!(v & PAGEMAP_GUARD) && (v & PAGEMAP_FILE))
				continue;
			r = add(ret, start, start + PAGE_BYTES, v & PAGEMAP_GUARD);
			if (r < 0)
				return error_errno(e, r, E_NO_MEMORY, "no memory for the page map");
		}
	}
	return 0;
}

int pagemap_read(int fd, const struct span_vec *where, struct page_spans *ret, struct error *e)
{
	vec_for_each (s, where) {
		int r = read_range(fd, s->start, s->end, ret, e);

		if (r < 0)
			return r;
	}
	return 0;
}

/* What one region of a scan adds, within one of the spans. */
static int take_region(int fd, const struct pagemap_region *region, uint64_t start, uint64_t end,
		       bool guards_known, struct page_spans *ret, struct error *e)
{
	int r;

	if (region->categories & PAGEMAP_IS_GUARD)
		r = add(ret, start, end, true);
	else if ((region->categories & PAGEMAP_IS_SWAPPED) && !guards_known)
		return read_range(fd, start, end, ret, e);
	else if (region->categories & PAGEMAP_IS_PFNZERO)
		return 0;
	else
		r = add(ret, start, end, false);
	return r < 0 ? error_errno(e, r, E_NO_MEMORY, "no memory for the page map") : 0;
}

/* Regions come in order of address; `at` is where in the spans the last one ended. */
static int take_regions(int fd, const struct pagemap_region *regions, size_t n,
			const struct span_vec *where, size_t *at, bool guards_known,
			struct page_spans *ret, struct error *e)
{
	for (size_t i = 0; i < n; i++) {
		const struct pagemap_region *region = &regions[i];

		while (*at < where->n && where->v[*at].end <= region->start)
			(*at)++;
		for (size_t j = *at; j < where->n && where->v[j].start < region->end; j++) {
			const struct span *s = &where->v[j];
			uint64_t start = s->start > region->start ? s->start : region->start;
			uint64_t end = s->end < region->end ? s->end : region->end;
			int r = take_region(fd, region, start, end, guards_known, ret, e);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

/*
 * Where a scan has come to. The kernel collects 512 regions at a time; after a walk that went on
 * past those and came to its end, walk_end still tells where they ended (6.18). Starting over from
 * there would give the same regions twice. With room left for more there are no more, and a region
 * that was given is never before the place to go on from.
 */
static uint64_t scan_progress(const struct pagemap_scan_arg *arg,
			      const struct pagemap_region *regions, size_t n)
{
	if (n < arg->vec_len)
		return arg->end;
	return regions[n - 1].end > arg->walk_end ? regions[n - 1].end : arg->walk_end;
}

/*
 * Pages of files are left out by the kernel (category FILE inverted). PAGEMAP_IS_GUARD came
 * with 6.16; before it a guard page looks like a swapped one, and its entry has to be read.
 */
static int scan_range(int fd, const struct span *range, const struct span_vec *where, size_t *at,
		      bool *guards_known, struct page_spans *ret, struct error *e)
{
	struct pagemap_region regions[REGIONS_AT_ONCE];
	struct pagemap_scan_arg arg = {
		.size = sizeof(arg),
		.start = range->start,
		.end = range->end,
		.vec = (uint64_t)(uintptr_t)regions,
		.vec_len = REGIONS_AT_ONCE,
		.category_mask = PAGEMAP_IS_FILE,
		.category_inverted = PAGEMAP_IS_FILE,
	};

	while (arg.start < arg.end) {
		uint64_t guard = *guards_known ? PAGEMAP_IS_GUARD : 0;
		int r, n;

		arg.category_anyof_mask = PAGEMAP_IS_PRESENT | PAGEMAP_IS_SWAPPED | guard;
		arg.return_mask = PAGEMAP_IS_SWAPPED | PAGEMAP_IS_PFNZERO | guard;
		n = ioctl(fd, PAGEMAP_SCAN_CMD, &arg);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EINVAL && *guards_known) {
			*guards_known = false;
			continue;
		}
		if (n < 0)
			return -errno;
		r = take_regions(fd, regions, (size_t)n, where, at, *guards_known, ret, e);
		if (r < 0)
			return r;
		arg.start = scan_progress(&arg, regions, (size_t)n);
	}
	return 0;
}

/*
 * The walk of the page tables skips what is not there, so that many mappings are
 * scanned in one call. What lies between two spans may be a large shared mapping, which is not
 * worth a walk.
 */
int pagemap_scan(int fd, const struct span_vec *where, struct page_spans *ret, struct error *e)
{
	const uint64_t far = 16ul << 20;
	bool guards_known = true;
	size_t at = 0;

	for (size_t i = 0, j; i < where->n; i = j) {
		struct span range = where->v[i];
		int r;

		for (j = i + 1; j < where->n && where->v[j].start - range.end < far; j++)
			range.end = where->v[j].end;
		r = scan_range(fd, &range, where, &at, &guards_known, ret, e);
		if ((r == -ENOTTY || r == -EINVAL) && ret->n == 0)
			return pagemap_read(fd, where, ret, e);
		if (r < 0)
			return failed(e, r);
	}
	return 0;
}

/* ---- tracked memory ---- */

/* Goes through a range, and calls `take` for each region. Returns 0 or a negative errno. */
static int scan_regions(int fd, struct pagemap_scan_arg *arg,
			int (*take)(void *to, const struct pagemap_region *region), void *to)
{
	struct pagemap_region regions[REGIONS_AT_ONCE];

	arg->size = sizeof(*arg);
	arg->vec = (uint64_t)(uintptr_t)regions;
	arg->vec_len = REGIONS_AT_ONCE;
	while (arg->start < arg->end) {
		int n = ioctl(fd, PAGEMAP_SCAN_CMD, arg);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++) {
			int r = take(to, &regions[i]);

			if (r < 0)
				return r;
		}
		arg->start = scan_progress(arg, regions, (size_t)n);
	}
	return 0;
}

int span_add(struct span_vec *to, uint64_t start, uint64_t end)
{
	struct span *last = to->n ? &to->v[to->n - 1] : NULL;

	/* a region may be given twice, see scan_progress() */
	if (last && start >= last->start && start <= last->end) {
		last->end = end > last->end ? end : last->end;
		return 0;
	}
	last = vec_push(to);
	if (!last)
		return -ENOMEM;
	*last = (struct span){start, end};
	return 0;
}

struct tracked {
	int fd;
	bool guards_known;
	struct page_spans *pages;
	struct span_vec *unwritten;
	struct error *e;
};

/* Anonymous memory has no pages of files, so that the costly question for them is left out. */
static int take_tracked(void *to, const struct pagemap_region *region)
{
	struct tracked *t = to;
	int r = take_region(t->fd, region, region->start, region->end, t->guards_known, t->pages,
			    t->e);

	if (r < 0 || !(region->categories & PAGEMAP_IS_WPALLOWED) ||
	    (region->categories & (PAGEMAP_IS_WRITTEN | PAGEMAP_IS_PFNZERO | PAGEMAP_IS_GUARD)))
		return r;
	return span_add(t->unwritten, region->start, region->end);
}

int pagemap_scan_tracked(int fd, const struct span *span, struct page_spans *ret,
			 struct span_vec *ret_unwritten, struct error *e)
{
	struct tracked t = {fd, true, ret, ret_unwritten, e};
	int r;

	for (;;) {
		uint64_t guard = t.guards_known ? PAGEMAP_IS_GUARD : 0;
		struct pagemap_scan_arg arg = {
			.start = span->start,
			.end = span->end,
			.category_anyof_mask = PAGEMAP_IS_PRESENT | PAGEMAP_IS_SWAPPED | guard,
			.return_mask = PAGEMAP_IS_WPALLOWED | PAGEMAP_IS_WRITTEN |
				       PAGEMAP_IS_SWAPPED | PAGEMAP_IS_PFNZERO | guard,
		};

		r = scan_regions(fd, &arg, take_tracked, &t);
		if (r != -EINVAL || !t.guards_known)
			break;
		t.guards_known = false;
	}
	return r < 0 ? failed(e, r) : 0;
}

bool pagemap_is_tracked(int fd, uint64_t address)
{
	struct pagemap_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PAGEMAP_CHECK_WPASYNC,
		.start = address,
		.end = address + PAGE_BYTES,
	};

	return ioctl(fd, PAGEMAP_SCAN_CMD, &arg) >= 0;
}

static int take_written(void *to, const struct pagemap_region *region)
{
	return span_add(to, region->start, region->end);
}

/*
 * Asked for nothing but what is written, the kernel takes a short way (pagemap_scan_pmd_entry()),
 * on which each page without the mark counts, also one that is not there.
 */
int pagemap_find_written(int fd, const struct span *span, struct span_vec *ret)
{
	struct pagemap_scan_arg arg = {
		.flags = PAGEMAP_CHECK_WPASYNC,
		.start = span->start,
		.end = span->end,
		.category_mask = PAGEMAP_IS_WRITTEN,
		.return_mask = PAGEMAP_IS_WRITTEN,
	};

	return scan_regions(fd, &arg, take_written, ret);
}

int pagemap_find_there(int fd, const struct span *span, struct span_vec *ret)
{
	struct pagemap_scan_arg arg = {
		.flags = PAGEMAP_CHECK_WPASYNC,
		.start = span->start,
		.end = span->end,
		.category_mask = PAGEMAP_IS_WRITTEN,
		.category_anyof_mask = PAGEMAP_IS_PRESENT | PAGEMAP_IS_SWAPPED,
		.return_mask = PAGEMAP_IS_WRITTEN,
	};

	return scan_regions(fd, &arg, take_written, ret);
}

static int track_own(void *memory, size_t len)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC};
	struct uffdio_register reg = {.range = {(uintptr_t)memory, len},
				      .mode = UFFDIO_REGISTER_MODE_WP};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0 || ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
		close_fd(&uffd);
	return uffd;
}

/* Holes of every size are told by one function of the kernel, pagemap_scan_pte_hole(). */
bool pagemap_tells_holes(int proc_fd, int sharing)
{
	const size_t len = 2 * PAGEMAP_TABLE; /* somewhere in it is all that a table maps */
	void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE,
			    sharing | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	const struct span all = {(uintptr_t)memory, (uintptr_t)memory + len};
	_cleanup_(close_fd) int uffd = -EBADF;
	_cleanup_(close_fd) int fd = -EBADF;
	struct span_vec found = {};
	bool told;

	if (memory == MAP_FAILED)
		return false;
	uffd = track_own(memory, len);
	fd = procfs_open(proc_fd, O_RDONLY | O_CLOEXEC, NULL, "self/pagemap");
	told = uffd >= 0 && fd >= 0 && pagemap_find_written(fd, &all, &found) >= 0 &&
	       found.n == 1 && found.v[0].start == all.start && found.v[0].end == all.end;
	vec_free(&found);
	munmap(memory, len);
	return told;
}

/* In pieces: see pagemap_take_written(). */
int pagemap_take_marks(int fd, const struct span *span, struct span_vec *ret)
{
	const uint64_t piece = 16ul << 20;
	int r = 0;

	for (uint64_t at = span->start; r >= 0 && at < span->end;) {
		uint64_t next = (at & ~(piece - 1)) + piece;
		struct pagemap_scan_arg arg = {
			.flags = PAGEMAP_WP_MATCHING | PAGEMAP_CHECK_WPASYNC,
			.start = at,
			.end = next < span->end ? next : span->end,
			.category_mask = PAGEMAP_IS_WRITTEN,
			.return_mask = PAGEMAP_IS_WRITTEN,
		};

		at = arg.end;
		r = scan_regions(fd, &arg, take_written, ret);
	}
	return r;
}

bool pagemap_is_marked(int fd, uint64_t address)
{
	uint64_t entry;

	return pagemap_entries(fd, address, &entry, 1, NULL) >= 0 && (entry & PAGEMAP_MARKED) &&
	       (entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) && !(entry & PAGEMAP_GUARD);
}

/*
 * In pieces, since the kernel holds the lock of the address space meanwhile, and the application
 * may want to map something. On a failure some pages of the piece may be protected without having
 * been told: then all of it counts. Where nothing is found, the next piece may be larger: programs
 * reserve terabytes.
 */
int pagemap_take_written(int fd, const struct span *span, struct span_vec *ret, struct error *e)
{
	const uint64_t least = 16ul << 20, most = 1ul << 30;
	uint64_t guard = PAGEMAP_IS_GUARD, piece = least;

	for (uint64_t at = span->start; at < span->end;) {
		uint64_t last = ret->n ? ret->v[ret->n - 1].end : 0;
		uint64_t next = (at & ~(piece - 1)) + piece;
		uint64_t end = next < span->end ? next : span->end;
		struct pagemap_scan_arg arg = {
			.flags = PAGEMAP_WP_MATCHING | PAGEMAP_CHECK_WPASYNC,
			.start = at,
			.end = end,
			.category_inverted = PAGEMAP_IS_PFNZERO | guard,
			.category_mask = PAGEMAP_IS_WRITTEN | PAGEMAP_IS_PFNZERO | guard,
			.category_anyof_mask = PAGEMAP_IS_PRESENT | PAGEMAP_IS_SWAPPED,
			.return_mask = PAGEMAP_IS_PRESENT,
		};
		int r = scan_regions(fd, &arg, take_written, ret);

		if (r == -EINVAL && guard) {
			guard = 0;
			continue;
		}
		if (r < 0 && r != -ENOMEM && r != -ESRCH)
			r = span_add(ret, at, end);
		if (r < 0)
			return failed(e, r);
		if (ret->n && ret->v[ret->n - 1].end != last)
			piece = least;
		else if (piece < most)
			piece *= 2;
		at = end;
	}
	return 0;
}
