/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "image/pages.h"
#include "image/reader.h"

/* Frames of pages that were passed over at first, read here and there in a regular file. */

struct image_room {
	struct pages_codec codec;
	uint8_t *buf;
	size_t size;
};

struct image_room *image_room_new(void)
{
	return calloc(1, sizeof(struct image_room));
}

void image_room_free(struct image_room *room)
{
	if (!room)
		return;
	pages_codec_free(&room->codec);
	free(room->buf);
	free(room);
}

bool image_is_file(const struct image_reader *r)
{
	return r->in.positioned;
}

int image_descriptor(const struct image_reader *r)
{
	return r->in.fd;
}

const struct image_later *image_later(const struct image_reader *r, size_t i)
{
	return i < r->later.n ? &r->later.v[i] : NULL;
}

/* The header has been seen before, and is part of the digest: it must be the same still. */
static int check_same(const struct image_later *f, uint8_t *buf, struct error *e)
{
	const struct frame *head = (const struct frame *)buf;
	const struct pages_header *p = (const struct pages_header *)(head + 1);

	if (head->type != FRAME_PAGES || frame_size(head) != f->size ||
	    head->checksum != f->checksum || head->id != f->group.object ||
	    p->stage != f->group.stage || p->first != f->first || p->end != f->end ||
	    pages_check_head(head, p))
		return reader_damaged(f->offset, "it has changed since it was opened", e);
	if (!frame_intact(buf))
		return reader_damaged(f->offset, "checksum of a frame of pages", e);
	return 0;
}

int image_read_later(const struct image_reader *r, const struct image_later *f,
		     struct image_room *room, page_sink sink, void *arg, struct error *e)
{
	uint64_t pages;
	ssize_t n;
	int err;

	if (room->size < f->size) {
		free(room->buf);
		room->size = align_up(f->size, IMAGE_PAGE);
		room->buf = aligned_alloc(IMAGE_PAGE, room->size);
	}
	if (!room->buf) {
		room->size = 0;
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for pages");
	}
	n = stream_read(&r->in, room->buf, f->size, f->offset, e);
	if (n < 0)
		return (int)n;
	if ((size_t)n < f->size)
		return error_set(e, -EBADMSG, E_IMAGE_CUT,
				 "the image ends at offset %llu, within a frame of pages",
				 (unsigned long long)f->offset + (size_t)n);
	err = check_same(f, room->buf, e);
	return err < 0 ? err
		       : pages_deliver(&room->codec, room->buf, f->offset, sink, arg, &pages, e);
}
