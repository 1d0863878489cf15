/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "image/reader.h"
#include "image/store.h"

/*
 * Early frames: passed over when they come, and read when a run refers to them. From a stream they
 * are kept in a file without a name until then.
 */

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for pages");
}

static int write_spill(struct image_reader *r, const uint8_t *buf, size_t len, struct error *e)
{
	size_t done = 0;

	if (r->early.spill < 0)
		r->early.spill = store_open_file(-EBADF);
	if (r->early.spill < 0)
		return error_errno(e, r->early.spill, E_SYSTEM,
				   "no file could be made to keep pages in");
	while (done < len) {
		ssize_t n =
			pwrite(r->early.spill, buf + done, len - done, (off_t)(r->offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_errno(e, n ? -errno : -ENOSPC, E_SYSTEM,
					   "pages cannot be kept in a file");
		done += (size_t)n;
	}
	return 0;
}

/* Headers are there; the rest comes from the stream. */
static int keep(struct image_reader *r, struct early_seen *seen, struct error *e)
{
	size_t size = frame_size(&r->next);
	_cleanup_(free_ptr) uint8_t *buf = malloc(size);
	int err;

	if (!buf)
		return no_memory(e);
	memcpy(buf, &r->next, sizeof(r->next));
	memcpy(buf + sizeof(r->next), &r->next_pages, sizeof(r->next_pages));
	err = reader_take(r, buf + PAGES_HEAD, size - PAGES_HEAD, r->offset + PAGES_HEAD,
			  "a frame of pages", e);
	if (err < 0)
		return err;
	reader_loaded(r, buf, seen->strong);
	return write_spill(r, buf, size, e);
}

int early_pass(struct image_reader *r, struct error *e)
{
	const char *wrong = pages_check_head(&r->next, &r->next_pages);
	struct early_seen *seen;
	int err;

	if (!wrong && r->index.n)
		wrong = "an early frame behind others";
	if (wrong)
		return reader_damaged(r->offset, wrong, e);
	err = reader_peek_strong(r, e);
	if (err < 0)
		return err;
	seen = vec_push(&r->early.frames);
	if (!seen)
		return no_memory(e);
	seen->offset = r->offset;
	seen->frame = r->next;
	seen->pages = r->next_pages;
	memcpy(seen->strong, r->next_strong, sizeof(seen->strong));
	reader_digest(r);
	if (r->strong && r->in.positioned)
		reader_digest_strong(r, seen->strong);
	err = r->in.positioned ? 0 : keep(r, seen, e);
	if (err < 0)
		return err;
	r->totals.page_bytes += r->next_pages.stored_length;
	r->offset += frame_size(&r->next);
	return 0;
}

struct early_seen *early_at(struct image_reader *r, uint64_t offset)
{
	size_t low = bisect(r->early.frames.n, i, r->early.frames.v[i].offset >= offset);

	return low < r->early.frames.n && r->early.frames.v[low].offset == offset
		       ? &r->early.frames.v[low]
		       : NULL;
}

static int read_rest(struct image_reader *r, uint8_t *buf, size_t len, uint64_t offset,
		     struct error *e)
{
	if (r->in.positioned)
		return reader_take(r, buf, len, offset, "a frame of pages", e);
	while (len) {
		ssize_t n = pread(r->early.spill, buf, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_errno(e, n ? -errno : -EIO, E_SYSTEM,
					   "pages that were kept in a file cannot be read");
		buf += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int load(struct image_reader *r, const struct early_seen *seen, struct early_frame *f,
		struct error *e)
{
	size_t size = frame_size(&seen->frame);
	int err;

	f->offset = 0;
	f->data = NULL;
	if (f->room < size) {
		free(f->buf);
		f->room = align_up(size, IMAGE_PAGE);
		f->buf = aligned_alloc(IMAGE_PAGE, f->room);
		if (!f->buf) {
			f->room = 0;
			return no_memory(e);
		}
	}
	/* not read again: these were checked, and are in the digest */
	memcpy(f->buf, &seen->frame, sizeof(seen->frame));
	memcpy(f->buf + sizeof(seen->frame), &seen->pages, sizeof(seen->pages));
	err = read_rest(r, f->buf + PAGES_HEAD, size - PAGES_HEAD, seen->offset + PAGES_HEAD, e);
	if (err < 0)
		return err;
	if (!frame_intact(f->buf))
		return reader_damaged(seen->offset, "checksum of a frame of pages", e);
	if (r->strong && !frame_is(f->buf, seen->strong))
		return reader_damaged(seen->offset, "digest of a frame of pages", e);
	f->offset = seen->offset;
	return 0;
}

/* Called from several threads at once: the table is complete before the first frame is delivered.
 */
int early_find(void *cache, uint64_t offset, struct early_frame **ret, struct error *e)
{
	struct early_cache *c = cache;
	struct early_seen *seen;
	int err;

	for (size_t i = 0; i < sizeof(c->frames) / sizeof(c->frames[0]); i++)
		if (offset && c->frames[i].offset == offset) {
			*ret = &c->frames[i];
			return 1;
		}
	seen = early_at(c->r, offset);
	if (!seen)
		return 0;
	*ret = &c->frames[c->next++ % (sizeof(c->frames) / sizeof(c->frames[0]))];
	err = load(c->r, seen, *ret, e);
	if (err < 0)
		return err;
	seen->checked = true;
	return 1;
}

void early_cache_free(struct early_cache *c)
{
	for (size_t i = 0; i < sizeof(c->frames) / sizeof(c->frames[0]); i++)
		early_frame_free(&c->frames[i]);
}

int early_check_rest(struct image_reader *r, struct error *e)
{
	_cleanup_(early_frame_free) struct early_frame f = {};

	vec_for_each (seen, &r->early.frames) {
		int err = seen->checked ? 0 : load(r, seen, &f, e);

		if (err >= 0 && !seen->checked)
			err = pages_check_early(&f, e);
		if (err < 0)
			return err;
	}
	return 0;
}
