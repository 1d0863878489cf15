/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers that are registered are pages which the kernel holds, whatever has become of the
 * addresses. They can be registered again if they are what the owner has there now: its
 * page table tells page frames, the kernel's list has descriptors of pages, which stand in an array
 * in the order of the frames. Where that begins is told by a page that is known in both ways, the
 * first of the rings of ours.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "fs/uring.h"

#define FRAME_BYTES    4096ull
#define PFN_MASK       ((1ull << 55) - 1)
#define PRESENT	       (1ull << 63)
#define BVECS_AT_ONCE  256
#define FRAMES_AT_ONCE 512

uint64_t uring_frame_of(uint64_t entry)
{
	return entry & PRESENT ? entry & PFN_MASK : 0;
}

int uring_frame_at(int pagemap, uint64_t address, uint64_t *ret)
{
	uint64_t entry;

	if (pread(pagemap, &entry, 8, (off_t)(address / FRAME_BYTES * 8)) != 8)
		return -EFAULT;
	*ret = uring_frame_of(entry);
	return *ret ? 0 : -EFAULT;
}

static int page_of(struct kernel_memory *k, int ring, uint64_t *ret)
{
	uint64_t at = 0;
	int r = kernel_file(k, ring, &at);

	if (r >= 0)
		r = kernel_member(k, at, "file", "private_data", &at, sizeof(at));
	if (r >= 0)
		r = kernel_member(k, at, "io_ring_ctx", "ring_region.pages", &at, sizeof(at));
	return r < 0 ? r : kernel_read(k, at, ret, sizeof(*ret));
}

int uring_page_base(struct checkpoint *c, struct kernel_memory *k, struct uring_pages *ret,
		    struct error *e)
{
	struct io_uring_params params = {};
	_cleanup_(close_fd) int fd = (int)syscall(SYS_io_uring_setup, 1, &params);
	_cleanup_(close_fd) int pagemap =
		procfs_open(c->proc_fd, O_RDONLY | O_CLOEXEC, e, "self/pagemap");
	volatile uint8_t *at =
		mmap(NULL, FRAME_BYTES, PROT_READ, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	int size = kernel_size(k, "page");
	uint64_t page = 0, frame = 0;
	int r = pagemap < 0 ? pagemap : 0;

	if (at == MAP_FAILED)
		return error_errno(e, -errno, E_SYSTEM, "cannot make rings, or map them");
	ignore(at[0], "so that it is in our page table");
	if (r >= 0)
		r = uring_frame_at(pagemap, (uint64_t)(uintptr_t)at, &frame);
	munmap((void *)(uintptr_t)at, FRAME_BYTES);
	if (r >= 0 && size <= 0)
		r = -EOPNOTSUPP;
	if (r >= 0)
		r = page_of(k, fd, &page);
	if (r < 0)
		return error_set(
			e, -EOPNOTSUPP, E_FILE_STATE,
			"pages of the application belong to it, and it cannot be seen where they "
			"are (that takes CAP_SYS_ADMIN, for the page frames of /proc/PID/pagemap)");
	ret->size = (uint32_t)size;
	ret->base = page - frame * ret->size;
	return 0;
}

/* Are these the frames that follow from `first` on? */
static bool frames_follow(int pagemap, uint64_t first, const uint64_t *frames, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint64_t is;

		if (uring_frame_at(pagemap, first + i * 4096ull, &is) < 0 || is != frames[i])
			return false;
	}
	return true;
}

/* The address of the frames in one mapping; 0: they are not there. */
static uint64_t search_mapping(int pagemap, uint64_t from, uint64_t to, const uint64_t *frames,
			       uint32_t n)
{
	uint64_t entries[FRAMES_AT_ONCE];

	while (from < to) {
		size_t count =
			(to - from) / 4096 < FRAMES_AT_ONCE ? (to - from) / 4096 : FRAMES_AT_ONCE;
		ssize_t got = pread(pagemap, entries, count * 8, (off_t)(from / 4096 * 8));

		if (got <= 0)
			return 0;
		for (size_t i = 0; i < (size_t)got / 8; i++)
			if (uring_frame_of(entries[i]) == frames[0] &&
			    frames_follow(pagemap, from + i * 4096, frames, n))
				return from + i * 4096;
		from += (uint64_t)got / 8 * 4096;
	}
	return 0;
}

static uint64_t search(const char *maps, int pagemap, const uint64_t *frames, uint32_t n)
{
	for (const char *line = maps; *line;) {
		uint64_t from, to, at;
		char mode[5];

		if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) == 3 && mode[1] == 'w') {
			at = search_mapping(pagemap, from, to, frames, n);
			if (at)
				return at;
		}
		line = strchr(line, '\n');
		if (!line++)
			break;
	}
	return 0;
}

int uring_find_pages(struct kernel_memory *k, const struct uring_pages *base, uint64_t array,
		     uint32_t n, const char *maps, int pagemap, uint64_t *ret)
{
	_cleanup_(free_ptr) uint64_t *pages = calloc(n + 1ul, sizeof(*pages));
	int r = pages ? kernel_read(k, array, pages, n * sizeof(*pages)) : -ENOMEM;

	for (uint32_t i = 0; i < n && r >= 0; i++)
		pages[i] = (pages[i] - base->base) / base->size;
	*ret = r < 0 || !n ? 0 : search(maps, pagemap, pages, n);
	return r;
}

struct bvec {
	uint64_t page;
	uint32_t length, offset;
};

/* Do these pages stand at `address`? */
static bool is_there(const struct uring_pages *p, int pagemap, const struct bvec *v,
		     uint64_t address)
{
	uint64_t frame = (v->page - p->base) / p->size + v->offset / FRAME_BYTES, is;

	for (uint64_t done = 0; done < v->offset % FRAME_BYTES + v->length; done += FRAME_BYTES)
		if (uring_frame_at(pagemap, address + done, &is) < 0 ||
		    is != frame + done / FRAME_BYTES)
			return false;
	return true;
}

int uring_buffer_check(struct kernel_memory *k, const struct uring_pages *p, int pagemap,
		       const struct uring_node *node)
{
	int first = kernel_offset(k, "io_mapped_ubuf", "bvec");
	uint64_t address = node->address;
	uint32_t n = 0;
	int r = kernel_member(k, node->buffer, "io_mapped_ubuf", "nr_bvecs", &n, sizeof(n));

	if (r >= 0 && (first < 0 || kernel_size(k, "bio_vec") != sizeof(struct bvec)))
		r = -EOPNOTSUPP;
	for (uint32_t i = 0; i < n && r >= 0; i += BVECS_AT_ONCE) {
		struct bvec v[BVECS_AT_ONCE];
		uint32_t count = n - i < BVECS_AT_ONCE ? n - i : BVECS_AT_ONCE;

		r = kernel_read(k, node->buffer + (uint64_t)first + (uint64_t)i * sizeof(v[0]), v,
				count * sizeof(v[0]));
		for (uint32_t j = 0; j < count && r >= 0; j++) {
			if (!is_there(p, pagemap, &v[j], address))
				r = -EFAULT;
			address += v[j].length;
		}
	}
	return r >= 0 && address - node->address != node->length ? -EFAULT : r;
}
