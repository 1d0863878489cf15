/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "image/chain.h"
#include "image/pages.h"
#include "image/reader.h"

/* Frames of pages that were passed over at first, read here and there in a regular file. */

struct image_room {
	struct image_reader *r;
	const struct image_later *holds; /* intact, and checked; NULL: nothing */
	struct pages_codec codec;
	struct early_cache early;
	uint8_t *buf;
	size_t size;
};

#define PART_BYTES PAGES_BLOCK

struct image_room *image_room_new(struct image_reader *r)
{
	struct image_room *room = calloc(1, sizeof(*room));

	if (room)
		room->r = room->early.r = r;
	return room;
}

void image_room_free(struct image_room *room)
{
	if (!room)
		return;
	pages_codec_free(&room->codec);
	early_cache_free(&room->early);
	free(room->buf);
	free(room);
}

bool image_is_file(const struct image_reader *r)
{
	return r->in.positioned;
}

int image_descriptor(const struct image_reader *r, size_t i)
{
	const struct page_map *parent;

	if (i == 0)
		return r->in.fd;
	parent = r->parents ? page_chain_at(r->parents, i - 1) : NULL;
	return parent ? page_map_reader(parent)->in.fd : -EBADF;
}

const struct image_later *image_later(const struct image_reader *r, size_t i)
{
	return i < r->later.n ? &r->later.v[i] : NULL;
}

/* The first page of a frame. */
union start {
	struct {
		struct frame frame;
		struct pages_header pages;
		struct pages_run runs[(IMAGE_PAGE - PAGES_HEAD) / sizeof(struct pages_run)];
	};
	uint64_t words[IMAGE_PAGE / sizeof(uint64_t)];
};

/* Where the contents of a run stand; *nplaced counts those that stand elsewhere. */
static uint64_t place_of(const union start *u, size_t words, const struct pages_run *run,
			 size_t *nplaced)
{
	size_t at;

	if (!run->flags)
		return IMAGE_PLACE_HERE;
	if (run->flags != PAGES_RUN_PLACED)
		return IMAGE_PLACE_NONE;
	/* the offsets follow the runs */
	at = (PAGES_HEAD + (size_t)u->pages.nruns * sizeof(*run)) / sizeof(uint64_t) + (*nplaced)++;
	return at < words ? u->words[at] : IMAGE_PLACE_NONE;
}

/*
 * The first part of the frame alone, which no checksum covers: where it is cut, and what comes
 * first, makes no difference to what is read.
 */
int image_later_parts(const struct image_reader *r, const struct image_later *f, image_part part,
		      void *arg, struct error *e)
{
	uint64_t at = f->first, bytes = 0, last = IMAGE_PLACE_NONE;
	size_t nplaced = 0;
	union start u;
	ssize_t n;
	int err = 0;

	if (f->data == f->end - f->first)
		return part(arg, f, f->first, f->end, IMAGE_PLACE_HERE);
	n = stream_read(&r->in, &u, sizeof(u), f->offset, e);
	if (n < 0)
		return (int)n;
	for (size_t i = 0; err >= 0 && (ssize_t)(PAGES_HEAD + (i + 1) * sizeof(u.runs[0])) <= n &&
			   i < u.pages.nruns;
	     i++) {
		uint64_t length = (uint64_t)u.runs[i].pages * IMAGE_PAGE;
		uint64_t place = place_of(&u, (size_t)n / sizeof(uint64_t), &u.runs[i], &nplaced);

		bytes += length;
		if (bytes >= PART_BYTES && u.runs[i].address > at && u.runs[i].address < f->end &&
		    u.runs[i].address % IMAGE_PAGE == 0) {
			err = part(arg, f, at, u.runs[i].address, last);
			at = u.runs[i].address;
			bytes = length;
			last = IMAGE_PLACE_NONE;
		}
		last = place > last ? place : last;
	}
	return err < 0 ? err : part(arg, f, at, f->end, last);
}

/* The header has been seen before, and is part of the digest: it must be the same still. */
static int check_same(const struct image_reader *r, const struct image_later *f, uint8_t *buf,
		      struct error *e)
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
	if (r->strong && !frame_is(buf, f->strong))
		return reader_damaged(f->offset, "digest of a frame of pages", e);
	return 0;
}

static int load(struct image_room *room, const struct image_later *f, struct error *e)
{
	ssize_t n;
	int err;

	room->holds = NULL;
	if (room->size < f->size) {
		free(room->buf);
		room->size = align_up(f->size, IMAGE_PAGE);
		room->buf = aligned_alloc(IMAGE_PAGE, room->size);
	}
	if (!room->buf) {
		room->size = 0;
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for pages");
	}
	n = stream_read(&room->r->in, room->buf, f->size, f->offset, e);
	if (n < 0)
		return (int)n;
	if ((size_t)n < f->size)
		return error_set(e, -EBADMSG, E_IMAGE_CUT,
				 "the image ends at offset %llu, within a frame of pages",
				 (unsigned long long)f->offset + (size_t)n);
	err = check_same(room->r, f, room->buf, e);
	if (err < 0)
		return err;
	reader_base(room->r, &room->codec, f->group.object);
	room->holds = f;
	return 0;
}

int image_read_later(struct image_room *room, const struct image_later *f, uint64_t from,
		     uint64_t to, page_sink sink, void *arg, struct error *e)
{
	const struct pages_early early = {
		.find = early_find, .arg = &room->early, .from = from, .to = to};
	uint64_t pages;
	int err = room->holds == f ? 0 : load(room, f, e);

	return err < 0 ? err
		       : pages_deliver(&room->codec, room->buf, f->offset, &early, sink, arg,
				       &pages, e);
}
