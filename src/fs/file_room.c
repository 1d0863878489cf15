/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room that was reserved for a file. Of files on disks the map of their extents tells which of them
 * have not been written. In memory it is pages that are not up to date, which lseek(SEEK_DATA)
 * takes for holes, and mincore(2) as well; but cachestat(2) counts them.
 */
#include "fs/file_room.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/kabi.h"

#define PAGE	4096ULL
#define BEHIND	((uint64_t)INT64_MAX & ~(PAGE - 1)) /* no file is longer */
#define EXTENTS 64u

struct finding {
	struct scratch *s;
	struct file_room *to;
	size_t room;
};

static int add(struct finding *f, uint64_t start, uint64_t length)
{
	struct file_room *to = f->to;

	if (to->n && to->parts[to->n - 2] + to->parts[to->n - 1] == start) {
		to->parts[to->n - 1] += length;
		return 0;
	}
	if (to->n == f->room) {
		size_t room = f->room ? f->room * 2 : 8;
		uint64_t *more = scratch_alloc(f->s, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		memcpy(more, to->n ? to->parts : more, to->n * sizeof(*more));
		to->parts = more;
		f->room = room;
	}
	to->parts[to->n++] = start;
	to->parts[to->n++] = length;
	return 0;
}

/* ---- files in memory ---- */

/* Pages that the file has there, also those that are in swap: 1, or 0 where it is not told. */
static int count_pages(int fd, uint64_t start, uint64_t end, uint64_t *ret)
{
	const struct kernel_cachestat_range range = {start, end - start};
	struct kernel_cachestat found = {};

	if (syscall(KERNEL_CACHESTAT, fd, &range, &found, 0) < 0)
		return 0;
	*ret = found.nr_cache + found.nr_evicted;
	return 1;
}

/* Halves what has some pages and not all. Room is in few parts; in many it takes as many calls. */
static int find_pages(struct finding *f, int fd, uint64_t start, uint64_t end)
{
	uint64_t pages = 0, middle = start + ((end - start) / 2 & ~(PAGE - 1));
	int r = start < end ? count_pages(fd, start, end, &pages) : 1;

	if (r <= 0 || !pages)
		return r;
	if (pages >= (end - start) / PAGE)
		return add(f, start, end - start) < 0 ? -ENOMEM : 1;
	r = find_pages(f, fd, start, middle);
	return r <= 0 ? r : find_pages(f, fd, middle, end);
}

static int find_in_memory(struct finding *f, int fd, const struct stat *st,
			  const struct file_contents *data)
{
	uint64_t at = 0, sum = 0;
	int r = 1;

	for (size_t i = 0; i < data->n; i++)
		sum += data->runs[i].length;
	if ((uint64_t)st->st_blocks * 512 <= sum)
		return 1;
	for (size_t i = 0; i < data->n && r > 0; i++) {
		uint64_t start = data->runs[i].address - data->base;

		r = find_pages(f, fd, at, start);
		at = start + data->runs[i].length;
	}
	return r <= 0 ? r : find_pages(f, fd, at, BEHIND);
}

/* To count pages takes 10 ms per GiB, but where there are none it takes nothing. */
int file_room_is_full(int fd, const struct stat *st)
{
	uint64_t end = ((uint64_t)st->st_size + PAGE - 1) & ~(PAGE - 1), pages;

	if ((uint64_t)st->st_blocks * 512 < end)
		return 0;
	if (!count_pages(fd, end, BEHIND, &pages))
		return -1;
	if (!pages)
		return 1;
	return count_pages(fd, 0, end, &pages) ? pages >= end / PAGE : -1;
}

/* ---- files on disks ---- */

union extents {
	struct fiemap head;
	char space[sizeof(struct fiemap) + EXTENTS * sizeof(struct fiemap_extent)];
};

/* One into which something is written just now, and which is not on the disk, is among them. */
static int find_extents(struct finding *f, int fd)
{
	union extents x;
	uint64_t next = 0;

	for (;;) {
		memset(&x.head, 0, sizeof(x.head));
		x.head.fm_start = next;
		x.head.fm_length = FIEMAP_MAX_OFFSET - next;
		x.head.fm_extent_count = EXTENTS;
		if (ioctl(fd, FS_IOC_FIEMAP, &x) < 0)
			return 0;
		for (uint32_t i = 0; i < x.head.fm_mapped_extents && i < EXTENTS; i++) {
			const struct fiemap_extent *e = &x.head.fm_extents[i];

			if (e->fe_flags & FIEMAP_EXTENT_UNWRITTEN &&
			    add(f, e->fe_logical, e->fe_length) < 0)
				return -ENOMEM;
			next = e->fe_logical + e->fe_length;
			if (e->fe_flags & FIEMAP_EXTENT_LAST)
				return 1;
		}
		if (!x.head.fm_mapped_extents)
			return 1;
	}
}

/* ---- */

/* Both lists are in order. */
static bool covers(const struct file_contents *data, const struct file_room *room, uint64_t size)
{
	uint64_t at = 0, before;
	size_t i = 0, j = 0;

	do {
		before = at;
		for (; i < data->n && data->runs[i].address - data->base <= at; i++)
			if (data->runs[i].address - data->base + data->runs[i].length > at)
				at = data->runs[i].address - data->base + data->runs[i].length;
		for (; j < room->n && room->parts[j] <= at; j += 2)
			if (room->parts[j] + room->parts[j + 1] > at)
				at = room->parts[j] + room->parts[j + 1];
	} while (at < size && at > before);
	return at >= size;
}

int file_room_find(int fd, const struct file_contents *data, struct scratch *s,
		   struct file_room *ret)
{
	struct finding f = {.s = s, .to = ret};
	struct statfs fs;
	struct stat st;
	int r;

	*ret = (struct file_room){};
	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return 0;
	r = fs.f_type == TMPFS_MAGIC ? find_in_memory(&f, fd, &st, data) : find_extents(&f, fd);
	if (r <= 0)
		*ret = (struct file_room){};
	else
		ret->all = covers(data, ret, (uint64_t)st.st_size);
	return r;
}

/* ---- restart ---- */

bool file_room_valid(size_t n, const uint64_t *parts)
{
	for (size_t i = 0; i + 1 < n; i += 2)
		if (!parts[i + 1] || parts[i] > INT64_MAX || parts[i + 1] > INT64_MAX - parts[i])
			return false;
	return n % 2 == 0;
}

int file_room_reserve(int fd, uint64_t from, size_t n, const uint64_t *parts)
{
	from = (from + PAGE - 1) & ~(PAGE - 1);
	for (size_t i = 0; i + 1 < n; i += 2) {
		uint64_t start = parts[i] < from ? from : parts[i], end = parts[i] + parts[i + 1];

		if (start < end &&
		    fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)start, (off_t)(end - start)) < 0)
			return errno == EOPNOTSUPP || errno == ENOSYS ? 0 : -errno;
	}
	return 0;
}
