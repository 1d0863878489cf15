/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_CUT_H
#define REPRISE_IMAGE_CUT_H

#include "image/pages.h"
#include "image/writer.h"

/* How far a group has been cut into blocks. */
struct cut {
	uint32_t type; /* of the frames */
	struct page_group group;
	const struct page_run *run, *end;
	uint64_t skip; /* bytes of *run that are gone */
};

/* Takes the next block. */
void cut_next(const struct image_writer *w, struct cut *c, struct pages_input *in);

#endif
