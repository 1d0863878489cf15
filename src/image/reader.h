/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_READER_H
#define REPRISE_IMAGE_READER_H

#include <stdatomic.h>

#include "core/vec.h"
#include "image/frame.h"
#include "image/heads.h"
#include "image/pages.h"
#include "image/stream.h"

/*
 * Shared by reader.c (header and state part), pages_read.c (page groups) and
 * read_end.c (what stands behind them). Nothing that is read is trusted.
 */

struct pages_reader;

struct early_seen {
	uint64_t offset;
	struct frame frame;
	struct pages_header pages;
	uint8_t strong[IMAGE_DIGEST_SIZE];
	atomic_bool checked;
};

struct image_reader {
	struct stream in;
	struct progress progress; /* in bytes of pages */
	int jobs;
	struct image_info info;

	uint8_t *state; /* the frames of the state part */
	size_t state_len;
	uint64_t state_offset;
	uint8_t header[IMAGE_HEADER_MAX]; /* state_offset bytes */
	bool has_origin;
	size_t origin_at; /* in the state part */
	VEC(struct image_record) records;
	const struct parent_frame *parent; /* in the state part; NULL: none */
	struct image_parent parent_ref;
	VEC(const struct same_frame *) same;
	const struct page_chain *parents; /* the caller's */

	struct digest *digest;
	bool strong;		       /* of all contents */
	struct image_totals totals;    /* counted */
	VEC(struct index_entry) index; /* as the writer must have made it */

	struct heads_read heads;

	/* The next frame of the page part, looked at in advance. */
	uint64_t offset; /* of that frame, or of what comes first behind those taken */
	bool peeked, at_end, ended;
	struct frame next;
	struct pages_header next_pages;
	uint8_t next_strong[IMAGE_DIGEST_SIZE]; /* of a stream: not before it is loaded */
	uint64_t group_end; /* address behind the last frame of the last group */
	bool groups_read;   /* by image_read_pages(): then none may be left over */
	VEC(struct image_later) later;

	/* Early frames that have been passed, in their order; those of a stream are kept in a file,
	 * at their offsets. */
	struct {
		VEC(struct early_seen) frames;
		int spill;
	} early;

	struct pages_reader *pages;
	int failed; /* after which the place in the stream is unknown */
	struct error error;
};

/* All of `len` bytes, or an error: there being less means that the image was cut. */
int reader_take(struct image_reader *r, void *buf, size_t len, uint64_t offset, const char *what,
		struct error *e) must_check;
int reader_damaged(uint64_t offset, const char *what, struct error *e);

/*
 * Looks at the frame at r->offset, passing over padding and optional frames of
 * unknown type: afterwards r->at_end is set, or next and next_pages are valid.
 */
int reader_peek(struct image_reader *r, struct error *e) must_check;
/* The peeked frame, with pages or without, goes into the digest; likewise its own. */
void reader_digest(struct image_reader *r);
void reader_digest_strong(struct image_reader *r, const uint8_t strong[IMAGE_DIGEST_SIZE]);
/* The peeked pages frame is being taken: accounts for its header. */
int reader_taken(struct image_reader *r, struct error *e) must_check;

/* Is there a place for the strong digest? From a file it is read. */
int reader_peek_strong(struct image_reader *r, struct error *e) must_check;
/* A frame of a stream with pages was read: its digest is known now. */
void reader_loaded(struct image_reader *r, const uint8_t *frame, uint8_t strong[IMAGE_DIGEST_SIZE]);

/* The peeked early frame is passed: accounts for it, and keeps it if it comes in a stream. */
int early_pass(struct image_reader *r, struct error *e) must_check;
/* The frame at an offset, NULL: there is none. */
struct early_seen *early_at(struct image_reader *r, uint64_t offset);
/* Finds a frame for pages_deliver(), whose `arg` this is; for one thread at a time. */
struct early_cache {
	struct image_reader *r;
	struct early_frame frames[4];
	unsigned int next;
};
int early_find(void *cache, uint64_t offset, struct early_frame **ret, struct error *e) must_check;
void early_cache_free(struct early_cache *c);
/* Checks those that nothing referred to. */
int early_check_rest(struct image_reader *r, struct error *e) must_check;
/* The frames PARENT and SAME of the state part. 1: it is one of them. */
int reader_parent_frame(struct image_reader *r, const struct frame *f, uint64_t offset,
			struct error *e) must_check;

/* Where the codec finds what an incremental image does not hold of an object. */
void reader_base(const struct image_reader *r, struct pages_codec *c, uint64_t object);

int pages_reader_new(struct pages_reader **ret, struct image_reader *r, struct error *e) must_check;
/* Takes all frames of the peeked group. when and sink may be NULL. */
int pages_reader_group(struct pages_reader *pr, const struct page_group *group, image_when when,
		       page_sink sink, void *arg, struct error *e) must_check;
void pages_reader_free(struct pages_reader *pr); /* accepts NULL */

#endif
