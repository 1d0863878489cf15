/* SPDX-License-Identifier: Apache-2.0 */
#include "image/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/procfs.h"
#include "image/frame.h"
#include "image/pages.h"

#define HUGE	    (2ul << 20)
#define MEMORY_MOST (1ul << 30) /* of addresses */
/* In a position: what the rest is an offset in. */
#define IN_FILE	    (1ull << 61)
#define IN_MEMORY   (1ull << 60)

struct page_store {
	void *mapping;
	uint8_t *memory; /* in it, aligned for huge pages */
	size_t used, most;
	struct image_writer *image; /* may be NULL */
	int fd;			    /* negative: there is none */
	uint64_t end;
	bool once;    /* see store_read_once() */
	uint8_t *buf; /* on the way to the file */
};

/* "/var/lib/x/.image.7.tmp", or "/var/lib/x/#1234 (deleted)", gives "/var/lib/x" */
static char *directory_of(int fd)
{
	_cleanup_(close_fd) int proc_fd = -EBADF;
	char *path = NULL, *slash;

	if (procfs_open_root(&proc_fd, NULL) < 0 ||
	    procfs_readlink(proc_fd, &path, NULL, "self/fd/%d", fd) < 0)
		return NULL;
	slash = path[0] == '/' ? strrchr(path, '/') : NULL;
	if (!slash) {
		free(path);
		return NULL;
	}
	slash[slash == path] = '\0';
	return path;
}

int store_open_file(int output)
{
	_cleanup_(free_ptr) char *beside = output < 0 ? NULL : directory_of(output);
	const char *const places[] = {beside, getenv("TMPDIR"), "/var/tmp", "/tmp"};
	int fd = -EBADF;

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]) && fd < 0; i++)
		if (places[i])
			fd = open(places[i], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

int store_new(struct page_store **ret, int output, bool in_file, struct error *e)
{
	struct page_store *s = calloc(1, sizeof(*s));

	if (!s)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to keep pages");
	s->most = STORE_MEMORY;
	s->fd = in_file ? store_open_file(output) : -EBADF;
	/* addresses only: nobody says how much will be needed */
	s->mapping = mmap(NULL, MEMORY_MOST + HUGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->mapping == MAP_FAILED) {
		s->mapping = NULL;
		store_free(s);
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to keep pages");
	}
	s->memory = (uint8_t *)align_up((uintptr_t)s->mapping, HUGE);
	madvise(s->memory, MEMORY_MOST, MADV_HUGEPAGE);
	*ret = s;
	return 0;
}

void store_free(struct page_store *s)
{
	if (!s)
		return;
	if (s->mapping)
		munmap(s->mapping, MEMORY_MOST + HUGE);
	close_fd(&s->fd);
	free(s->buf);
	free(s);
}

void store_warm(struct page_store *s, size_t bytes)
{
	bytes = align_up(bytes, IMAGE_PAGE);
	if (bytes > s->most)
		bytes = s->most;
	madvise(s->memory, bytes, MADV_POPULATE_WRITE);
}

void *store_spare(struct page_store *s, size_t *ret_len)
{
	*ret_len = s->most - s->used;
	return s->memory + s->used;
}

void store_use_image(struct page_store *s, struct image_writer *w)
{
	s->image = w;
}

void store_expect(struct page_store *s, uint64_t bytes)
{
	s->most = STORE_MEMORY + bytes / 512 / HUGE * HUGE;
	if (s->most > MEMORY_MOST)
		s->most = MEMORY_MOST;
}

size_t store_memory_left(const struct page_store *s)
{
	return s->most - s->used;
}

uint64_t store_room(const struct page_store *s)
{
	struct statvfs st;

	if (s->fd < 0 || fstatvfs(s->fd, &st) < 0)
		return 0;
	/* a file system without limits says 0 of 0 */
	return st.f_blocks ? (uint64_t)st.f_bavail * st.f_frsize : UINT64_MAX;
}

void store_clear(struct page_store *s)
{
	s->used = 0;
	s->end = 0;
	s->once = false;
	s->image = NULL;
	/* Old contents would show where zero pages are left out. */
	if (s->fd >= 0 && ftruncate(s->fd, 0) < 0)
		close_fd(&s->fd);
}

/* Zero pages become holes. */
static int write_piece(struct page_store *s, size_t len)
{
	size_t at = 0;

	while (at < len) {
		size_t n = 0;
		ssize_t r;

		while (at < len && page_is_zero(s->buf + at))
			at += IMAGE_PAGE;
		while (at + n < len && !page_is_zero(s->buf + at + n))
			n += IMAGE_PAGE;
		for (; n; n -= (size_t)r, at += (size_t)r) {
			r = pwrite(s->fd, s->buf + at, n, (off_t)(s->end + at));
			if (r < 0 && errno == EINTR)
				r = 0;
			if (r < 0)
				return -errno;
		}
	}
	return 0;
}

static int put_in_file(struct page_store *s, uint64_t address, size_t len, page_source source,
		       void *arg, uint64_t *ret_position, struct error *e)
{
	int r;

	if (!s->buf)
		s->buf = aligned_alloc(IMAGE_PAGE, STORE_PIECE);
	if (!s->buf)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to keep pages");
	if (s->fd < 0)
		return error_set(e, -ENOSPC, E_OUTPUT, "no file could be made to keep pages in");
	r = source(arg, address, s->buf, len, e);
	if (r < 0)
		return r;
	r = write_piece(s, len);
	if (r < 0)
		return error_errno(e, r, E_OUTPUT, "pages cannot be kept in a file");
	*ret_position = s->end | IN_FILE;
	s->end += len;
	return 0;
}

int store_put(struct page_store *s, bool in_memory, uint64_t address, size_t len,
	      page_source source, void *arg, uint64_t *ret_position, struct error *e)
{
	int r;

	if (len > STORE_PIECE || len % IMAGE_PAGE)
		return error_set(e, -EINVAL, E_INTERNAL, "a piece of %zu bytes to keep", len);
	if (!in_memory || len > store_memory_left(s))
		return put_in_file(s, address, len, source, arg, ret_position, e);
	r = source(arg, address, s->memory + s->used, len, e);
	if (r < 0)
		return r;
	*ret_position = s->used | IN_MEMORY;
	s->used += len;
	return 0;
}

static int put_run(struct page_store *s, const struct page_run *run, page_source source,
		   page_placed placed, void *arg, struct error *e)
{
	for (uint64_t at = 0; at < run->length; at += STORE_PIECE) {
		uint64_t left = run->length - at, position;
		size_t len = left < STORE_PIECE ? left : STORE_PIECE;
		/* without a file, what fits into memory */
		int r = store_put(s, s->fd < 0, run->address + at, len, source, arg, &position, e);

		if (r < 0)
			return r;
		if (placed(arg, run->address + at, len, position) < 0)
			return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to keep pages");
	}
	return 0;
}

int store_put_all(struct page_store *s, uint64_t parent_object, const struct page_run *runs,
		  size_t nruns, page_source source, page_placed placed, void *arg, struct error *e)
{
	if (s->image)
		image_early_of(s->image, parent_object);
	if (s->image)
		return image_put_early(s->image, runs, nruns, source, placed, arg, e);
	for (size_t i = 0; i < nruns; i++) {
		int r = put_run(s, &runs[i], source, placed, arg, e);

		if (r < 0)
			return r;
	}
	return 0;
}

void store_read_once(struct page_store *s)
{
	s->once = true;
}

int store_get(const struct page_store *s, uint64_t position, void *buf, size_t len, struct error *e)
{
	uint64_t offset = position & ~(IN_FILE | IN_MEMORY), begin = offset, end = offset + len;

	if (!(position & IN_FILE)) {
		if (!(position & IN_MEMORY) || offset > s->used || len > s->used - offset)
			return error_set(e, -EINVAL, E_INTERNAL, "pages that were not kept");
		memcpy(buf, s->memory + offset, len);
		return 0;
	}
	while (len) {
		ssize_t r = pread(s->fd, buf, len, (off_t)offset);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return error_errno(e, -errno, E_OUTPUT, "kept pages cannot be read");
		if (r == 0) { /* a hole at the end */
			memset(buf, 0, len);
			break;
		}
		buf = (char *)buf + r;
		offset += (uint64_t)r;
		len -= (size_t)r;
	}
	if (s->once)
		ignore(fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)begin,
				 (off_t)(end - begin)),
		       "not every file system can");
	return 0;
}
