/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "image/reader.h"

/* The end record, and the index that follows it in a file. */

static int check_totals(const struct image_reader *r, const struct image_end *end, struct error *e)
{
	const struct image_totals *t = &r->totals;

	if (end->digest_kind != (r->strong ? IMAGE_DIGEST_ALL : IMAGE_DIGEST_HEADERS) ||
	    end->reserved)
		return error_set(e, -EPROTONOSUPPORT, E_IMAGE_NEWER,
				 "the image has a digest of unknown kind %u", end->digest_kind);
	if (end->state_records != t->state_records || end->state_bytes != t->state_bytes ||
	    end->page_frames != t->page_frames || end->page_bytes != t->page_bytes ||
	    /* how many zero pages a frame has is not known before it is read */
	    (!r->later.n && (end->pages != t->pages || end->zero_pages != t->zero_pages)))
		return reader_damaged(r->offset, "the totals are not those of what was read", e);
	if (end->total_bytes !=
	    r->offset + sizeof(struct frame) + sizeof(*end) + end->trailing_bytes)
		return reader_damaged(r->offset, "total length", e);
	return 0;
}

static int read_end(struct image_reader *r, struct image_end *end, struct error *e)
{
	struct {
		struct frame f;
		struct image_end end;
	} u;
	int err;

	u.f = r->next;
	if (u.f.flags || u.f.length != sizeof(u.end))
		return reader_damaged(r->offset, "length of the end record", e);
	err = reader_take(r, &u.end, sizeof(u.end), r->offset + sizeof(u.f), "the end record", e);
	if (err < 0)
		return err;
	if (!frame_intact(&u))
		return reader_damaged(r->offset, "checksum of the end record", e);
	err = check_totals(r, &u.end, e);
	if (err < 0)
		return err;
	digest_update(r->digest, &u.end, offsetof(struct image_end, digest));
	digest_now(r->digest, r->totals.digest);
	if (!digest_equal(r->totals.digest, u.end.digest))
		return reader_damaged(r->offset, "digest of the image", e);
	r->totals.total_bytes = u.end.total_bytes;
	r->totals.strong = r->strong;
	*end = u.end;
	return 0;
}

/* It is there for those who read here and there, but must be true. */
static int check_index(struct image_reader *r, uint8_t *buf, uint64_t offset, struct error *e)
{
	struct frame *f = (struct frame *)buf;
	uint64_t length = r->index.n * sizeof(*r->index.v);
	struct image_trailer *t;
	uint64_t stored;

	if (f->type != FRAME_INDEX || f->flags || f->length != length)
		return reader_damaged(offset, "header of the index", e);
	if (!frame_intact(f))
		return reader_damaged(offset, "checksum of the index", e);
	if (length && memcmp(f + 1, r->index.v, length) != 0)
		return reader_damaged(offset, "the index is not that of this image", e);
	t = (struct image_trailer *)(buf + frame_size(f));
	stored = t->checksum;
	t->checksum = 0;
	if (!checksum_equal(checksum_of(t, sizeof(*t)), stored) ||
	    memcmp(t->magic, IMAGE_TRAILER_MAGIC, sizeof(t->magic)) != 0 ||
	    t->index_offset != offset || t->end_offset != r->offset)
		return reader_damaged(offset + frame_size(f), "trailer", e);
	return 0;
}

static int read_trailing(struct image_reader *r, const struct image_end *end, struct error *e)
{
	uint64_t offset = r->offset + sizeof(struct frame) + sizeof(*end);
	uint64_t expected = sizeof(struct frame) + r->index.n * sizeof(*r->index.v) +
			    sizeof(struct image_trailer);
	_cleanup_(free_ptr) uint8_t *buf = NULL;
	int err;

	if (end->trailing_bytes == 0)
		return 0;
	if (end->trailing_bytes != expected)
		return reader_damaged(r->offset, "length of the index", e);
	/* No more than the groups that were really there. */
	buf = malloc(expected);
	if (!buf)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the index");
	err = reader_take(r, buf, expected, offset, "the index", e);
	if (err < 0)
		return err;
	return check_index(r, buf, offset, e);
}

/* A file is read to its end; what follows in a stream is not ours to read. */
static int check_nothing_follows(struct image_reader *r, struct error *e)
{
	uint8_t byte;
	ssize_t n;

	if (!r->in.positioned)
		return 0;
	n = stream_read(&r->in, &byte, 1, r->totals.total_bytes, e);
	if (n < 0)
		return n;
	if (n > 0)
		return reader_damaged(r->totals.total_bytes, "something follows its end", e);
	return stream_finish(&r->in, r->totals.total_bytes, e);
}

/* A group that is left over was not asked for, or its header was damaged; only its checksum tells.
 */
static int skip_groups(struct image_reader *r, struct error *e)
{
	struct page_group group;
	uint64_t offset;
	int err;

	for (;;) {
		err = image_next_group(r, &group, e);
		if (err <= 0)
			return err;
		offset = r->offset;
		err = pages_reader_group(r->pages, &group, NULL, NULL, NULL, e);
		if (err < 0)
			return err;
		if (r->groups_read)
			return error_set(
				e, -EINVAL, E_IMAGE_INVALID,
				"the pages of object %llu, stage %u, at offset %llu are of "
				"no use to anything",
				(unsigned long long)group.object, group.stage,
				(unsigned long long)offset);
	}
}

int image_check_unused(struct image_reader *r, struct error *e)
{
	return early_check_rest(r, e);
}

int image_read_end(struct image_reader *r, struct image_totals *ret, struct error *e)
{
	struct image_end end = {};
	int err;

	if (!r->ended) {
		err = skip_groups(r, e);
		if (err < 0)
			return err;
		/* A restart has seen what it needs; who only looks wants to know all. */
		err = r->groups_read ? 0 : early_check_rest(r, e);
		if (err < 0)
			return err;
		err = read_end(r, &end, e);
		if (err < 0)
			return err;
		err = read_trailing(r, &end, e);
		if (err < 0)
			return err;
		err = check_nothing_follows(r, e);
		if (err < 0)
			return err;
		r->ended = true;
	}
	if (ret)
		*ret = r->totals;
	return 0;
}
