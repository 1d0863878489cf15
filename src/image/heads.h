/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_HEADS_H
#define REPRISE_IMAGE_HEADS_H

#include <stdbool.h>

#include "image/frame.h"

/*
 * The heads of all frames of the page part once more, together at its end: who leaves contents for
 * later need not look at each frame in turn, 4096 of them per GiB. They say nothing that the frames
 * do not; the digest is that of either.
 */

/* Fewer frames than that are looked at one by one as fast. */
#define HEADS_WORTH 64
#define HEADS_MAX   (256u << 20)

/* A frame with pages has its two headers and, if there are any, its strong digest in the list;
 * another one its header. */
static inline bool head_has_pages(const struct frame *f)
{
	return f->type == FRAME_PAGES || f->type == FRAME_EARLY;
}

static inline size_t head_size(const struct frame *f, bool strong)
{
	return head_has_pages(f) ? PAGES_HEAD + (strong ? IMAGE_DIGEST_SIZE : 0) : sizeof(*f);
}

/* ---- writing ---- */

struct heads {
	uint8_t *frame; /* the frame to be */
	size_t len, room;
	size_t n; /* with pages */
	bool given_up;
};

/* p, strong: of one with pages, else NULL; strong also if there is none. Without memory for it
 * there is no list. */
void heads_add(struct heads *h, const struct frame *f, const struct pages_header *p,
	       const uint8_t *strong);
/* 0: it is not worth it. Else the size of the frame, which is complete. */
size_t heads_seal(struct heads *h);
void heads_free(struct heads *h);

/* ---- reading ---- */

struct image_reader;

struct heads_read {
	/* of a list that is used */
	uint8_t *frame;
	size_t at;	/* in it, of the next one */
	uint64_t place; /* in the image, of the frame that it is the head of */
	/* of the frames that have been seen, where none is used */
	uint64_t sum, bytes;
};

/* The frame at r->offset is in the list: it has been looked at, then. */
bool heads_peek(struct image_reader *r);
/* The list itself has been peeked at: is it true? */
int heads_check(struct image_reader *r, struct error *e) must_check;

#endif
