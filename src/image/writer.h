/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_WRITER_H
#define REPRISE_IMAGE_WRITER_H

#include "core/vec.h"
#include "image/frame.h"
#include "image/heads.h"
#include "image/room.h"

/* Shared by writer.c (state part and end) and pages_write.c (what is between). */

enum writer_phase { WRITER_STATE, WRITER_PAGES, WRITER_DONE };

struct pages_writer;

struct early_entry {
	struct frame frame;
	struct pages_header pages;
	uint8_t strong[IMAGE_DIGEST_SIZE]; /* if there is one */
	uint64_t offset;
};

struct image_writer {
	struct stream out;
	struct file_room ahead;
	struct image_writer_options opt;
	enum writer_phase phase;
	struct progress progress; /* in bytes of pages */

	uint8_t *state; /* file header and state records, until they are written */
	size_t state_len, state_size;

	VEC(struct parent_object) parent_objects;
	bool packed; /* no space is left for the alignment of data */

	struct digest *digest;
	struct heads heads;
	struct image_totals totals;
	VEC(struct index_entry) index;
	uint64_t offset; /* where the next frame goes */

	/* what is written before the state part */
	struct {
		uint64_t room; /* in front of it; 0: there is none */
		VEC(struct early_entry) frames;
		uint64_t parent; /* object of the parent that is compared with */
	} early;

	struct pages_writer *pages;
};

/* The frames PARENT and SAME of the state part, whose payloads are to be filled in. */
int writer_put(struct image_writer *w, const struct frame *f, void **ret_payload,
	       struct error *e) must_check;
void writer_seal(struct image_writer *w);
/* A frame behind the state part, in the order of the image; p, strong: of one with pages. */
void writer_digest(struct image_writer *w, const struct frame *f, const struct pages_header *p,
		   const uint8_t *strong);
int writer_put_parent(struct image_writer *w, struct error *e) must_check;
/* `state`: header and all frames so far. */
void origin_fill(const struct image_key *key, const uint8_t *state, size_t len, struct origin *ret);

int pages_writer_new(struct pages_writer **ret, struct image_writer *w, struct error *e) must_check;
/* Waits until all is written. */
int pages_writer_drain(struct pages_writer *pw, struct error *e) must_check;
/* Makes the state part fit in front of the early frames, and accounts for these. */
int early_close(struct image_writer *w, struct error *e) must_check;
void pages_writer_free(struct pages_writer *pw); /* accepts NULL */

#endif
