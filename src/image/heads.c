/* SPDX-License-Identifier: Apache-2.0 */
#include "image/heads.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "image/reader.h"

/* ---- writing ---- */

static bool grow(struct heads *h, size_t more)
{
	size_t room = h->room ? 2 * h->room : 16 << 10;
	uint8_t *p;

	if (h->len + more <= h->room)
		return true;
	p = h->len + more > HEADS_MAX ? NULL : realloc(h->frame, room);
	if (!p)
		return false;
	h->frame = p;
	h->room = room;
	return true;
}

static void append(struct heads *h, const void *data, size_t len)
{
	memcpy(h->frame + h->len, data, len);
	h->len += len;
}

void heads_add(struct heads *h, const struct frame *f, const struct pages_header *p,
	       const uint8_t *strong)
{
	if (!h->len)
		h->len = sizeof(*f); /* its own header */
	if (!h->given_up)
		h->given_up = !grow(h, sizeof(*f) + sizeof(*p) + IMAGE_DIGEST_SIZE);
	if (h->given_up)
		return;
	append(h, f, sizeof(*f));
	if (!p)
		return;
	append(h, p, sizeof(*p));
	if (strong)
		append(h, strong, IMAGE_DIGEST_SIZE);
	h->n++;
}

size_t heads_seal(struct heads *h)
{
	if (h->given_up || h->n < HEADS_WORTH)
		return 0;
	*(struct frame *)h->frame = (struct frame){
		.type = FRAME_HEADS,
		.flags = RECORD_OPTIONAL,
		.length = h->len - sizeof(struct frame),
	};
	return frame_seal(h->frame);
}

void heads_free(struct heads *h)
{
	free(h->frame);
	*h = (struct heads){};
}

/* ---- reading one frame after the other ---- */

static uint64_t add_to_sum(uint64_t sum, const void *head, size_t len)
{
	uint64_t both[2] = {sum, checksum_of(head, len)};

	return checksum_of(both, sizeof(both));
}

static void passed(struct image_reader *r, const void *head, size_t len)
{
	r->heads.sum = add_to_sum(r->heads.sum, head, len);
	r->heads.bytes += len;
}

void reader_digest(struct image_reader *r)
{
	digest_update(r->digest, &r->next, sizeof(r->next));
	passed(r, &r->next, sizeof(r->next));
	if (head_has_pages(&r->next))
		passed(r, &r->next_pages, sizeof(r->next_pages));
}

void reader_digest_strong(struct image_reader *r, const uint8_t strong[IMAGE_DIGEST_SIZE])
{
	digest_update(r->digest, strong, IMAGE_DIGEST_SIZE);
	passed(r, strong, IMAGE_DIGEST_SIZE);
}

static uint64_t sum_of(const uint8_t *list, size_t len, bool strong)
{
	uint64_t sum = 0;
	size_t at = 0;

	while (len - at >= sizeof(struct frame)) {
		const struct frame *f = (const struct frame *)(list + at);
		size_t size = head_size(f, strong);

		if (len - at < size)
			return 0;
		sum = add_to_sum(sum, f, sizeof(*f));
		if (head_has_pages(f))
			sum = add_to_sum(sum, f + 1, sizeof(struct pages_header));
		if (size > PAGES_HEAD)
			sum = add_to_sum(sum, list + at + PAGES_HEAD, IMAGE_DIGEST_SIZE);
		at += size;
	}
	return sum;
}

int heads_check(struct image_reader *r, struct error *e)
{
	static const char damaged[] = "the list of frames is not that of this image";
	size_t size = sizeof(r->next) + r->heads.bytes;
	_cleanup_(free_ptr) uint8_t *buf = NULL;
	int err;

	if (r->heads.frame)
		return 0;
	/* no more memory than for what has been there */
	if (r->next.length != r->heads.bytes)
		return reader_damaged(r->offset, damaged, e);
	buf = malloc(size);
	if (!buf)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of frames");
	memcpy(buf, &r->next, sizeof(r->next));
	err = reader_take(r, buf + sizeof(r->next), size - sizeof(r->next),
			  r->offset + sizeof(r->next), "the list of frames", e);
	if (err < 0)
		return err;
	if (!frame_intact(buf))
		return reader_damaged(r->offset, "checksum of the list of frames", e);
	if (!checksum_equal(sum_of(buf + sizeof(r->next), r->heads.bytes, r->strong), r->heads.sum))
		return reader_damaged(r->offset, damaged, e);
	return 0;
}

/* ---- using it ---- */

/* Where it is, as the end record says: 0 if there is none. */
static int find(struct image_reader *r, uint64_t *ret_end, uint64_t *ret, struct error *e)
{
	struct {
		struct frame f;
		struct image_end end;
	} u;
	struct image_trailer t;
	uint64_t stored;
	int err;

	*ret = 0;
	if (!r->in.positioned || r->peeked || r->in.size < r->offset + sizeof(t) + sizeof(u))
		return 0;
	err = reader_take(r, &t, sizeof(t), r->in.size - sizeof(t), "the trailer", e);
	if (err < 0)
		return err;
	stored = t.checksum;
	t.checksum = 0;
	/* an image without one, or a damaged one, which is found out in time */
	if (memcmp(t.magic, IMAGE_TRAILER_MAGIC, sizeof(t.magic)) != 0 ||
	    !checksum_equal(checksum_of(&t, sizeof(t)), stored) || t.end_offset < r->offset ||
	    t.end_offset > r->in.size - sizeof(t) - sizeof(u))
		return 0;
	err = reader_take(r, &u, sizeof(u), t.end_offset, "the end record", e);
	if (err < 0)
		return err;
	if (u.f.type != FRAME_END || u.f.length != sizeof(u.end) || !frame_intact(&u))
		return 0;
	*ret_end = t.end_offset;
	*ret = u.f.id;
	return 0;
}

/* Frames follow each other without gaps, from the first to the list itself. */
static bool is_list(const uint8_t *list, size_t len, uint64_t from, uint64_t to, bool strong)
{
	size_t at = 0;

	while (len - at >= sizeof(struct frame)) {
		const struct frame *f = (const struct frame *)(list + at);
		size_t size = head_size(f, strong);

		if (size > len - at || f->length > PAGES_ADDRESS_MAX || from > to ||
		    frame_size(f) > to - from)
			return false;
		from += frame_size(f);
		at += size;
	}
	return at == len && from == to;
}

static int load(struct image_reader *r, uint64_t offset, size_t len, struct error *e)
{
	_cleanup_(free_ptr) uint8_t *buf = malloc(len);
	const struct frame *f = (const struct frame *)buf;
	int err;

	if (!buf)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the list of frames");
	err = reader_take(r, buf, len, offset, "the list of frames", e);
	if (err < 0)
		return err;
	if (f->type != FRAME_HEADS || f->flags != RECORD_OPTIONAL ||
	    f->length != len - sizeof(*f) || !frame_intact(buf))
		return reader_damaged(offset, "checksum of the list of frames", e);
	if (!is_list(buf + sizeof(*f), len - sizeof(*f), r->offset, offset, r->strong))
		return reader_damaged(offset, "the list of frames is not that of this image", e);
	r->heads.at = sizeof(*f);
	r->heads.place = r->offset;
	r->heads.frame = take_ptr(&buf);
	return 0;
}

int image_use_heads(struct image_reader *r, struct error *e)
{
	uint64_t end = 0, offset;
	int err = find(r, &end, &offset, e);

	if (err < 0 || !offset)
		return err;
	if (offset < r->offset || offset > end || end - offset < sizeof(struct frame))
		return reader_damaged(end, "place of the list of frames", e);
	/* too much to be worth its memory */
	if (end - offset > HEADS_MAX)
		return 0;
	return load(r, offset, end - offset, e);
}

bool heads_peek(struct image_reader *r)
{
	struct heads_read *h = &r->heads;
	const struct frame *list = (const struct frame *)h->frame;
	const uint8_t *head;
	size_t left;

	if (!list || h->place != r->offset)
		return false;
	left = sizeof(*list) + list->length - h->at;
	if (!left) {
		r->next = *list;
		h->place = 0;
		return true;
	}
	head = h->frame + h->at;
	memcpy(&r->next, head, sizeof(r->next));
	if (head_has_pages(&r->next))
		memcpy(&r->next_pages, head + sizeof(r->next), sizeof(r->next_pages));
	if (head_size(&r->next, r->strong) > PAGES_HEAD)
		memcpy(r->next_strong, head + PAGES_HEAD, IMAGE_DIGEST_SIZE);
	h->at += head_size(&r->next, r->strong);
	h->place += frame_size(&r->next);
	return true;
}
