/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_WRITER_H
#define REPRISE_IMAGE_WRITER_H

#include "core/vec.h"
#include "image/frame.h"
#include "image/stream.h"

/* Shared by writer.c (state part and end) and pages_write.c (what is between). */

enum writer_phase { WRITER_STATE, WRITER_PAGES, WRITER_DONE };

struct pages_writer;

struct image_writer {
	struct stream out;
	struct image_writer_options opt;
	enum writer_phase phase;
	struct progress progress; /* in bytes of pages */

	uint8_t *state; /* file header and state records, until they are written */
	size_t state_len, state_size;

	struct digest *digest;
	struct image_totals totals;
	VEC(struct index_entry) index;
	uint64_t offset; /* where the next frame goes */

	struct pages_writer *pages;
};

int pages_writer_new(struct pages_writer **ret, struct image_writer *w, struct error *e) must_check;
/* Waits until all is written. */
int pages_writer_drain(struct pages_writer *pw, struct error *e) must_check;
void pages_writer_free(struct pages_writer *pw); /* accepts NULL */

#endif
