/* SPDX-License-Identifier: Apache-2.0 */
#include "image/cut.h"

/* Of a run whose contents are in the image already, what one run of a frame can say. */
static uint64_t elsewhere_length(const struct page_run *run, uint64_t skip)
{
	uint64_t left = run->length - skip, in_frame;

	if (run->position & (PAGE_ZERO | PAGE_PARENT))
		return left < PAGES_ELSEWHERE_BYTES ? left : PAGES_ELSEWHERE_BYTES;
	in_frame = PAGES_BLOCK - ((run->position + skip) & ~PAGE_EARLY) % PAGES_BLOCK;
	return left < in_frame ? left : in_frame;
}

static uint64_t offset_of(const struct image_writer *w, uint64_t position)
{
	return position & (PAGE_ZERO | PAGE_PARENT)
		       ? position & (PAGE_ZERO | PAGE_PARENT)
		       : w->early.frames.v[(position & ~PAGE_EARLY) / PAGES_BLOCK].offset;
}

static bool has_room(const struct pages_input *in, const struct page_run *run)
{
	if (run->position)
		return in->elsewhere < PAGES_BLOCK_ELSEWHERE &&
		       in->bytes_elsewhere < PAGES_ELSEWHERE_BYTES;
	return in->bytes < PAGES_BLOCK && in->nruns - in->elsewhere < PAGES_BLOCK_RUNS;
}

void cut_next(const struct image_writer *w, struct cut *c, struct pages_input *in)
{
	in->type = c->type;
	in->group = c->group;
	in->nruns = in->elsewhere = 0;
	in->bytes = in->bytes_elsewhere = 0;
	while (c->run < c->end && has_room(in, c->run)) {
		uint64_t left = c->run->length - c->skip;
		uint64_t take = left < PAGES_BLOCK - in->bytes ? left : PAGES_BLOCK - in->bytes;
		struct page_run *run = &in->runs[in->nruns++];

		if (c->run->position) {
			take = elsewhere_length(c->run, c->skip);
			run->position = offset_of(w, c->run->position + c->skip);
			in->bytes_elsewhere += take;
			in->elsewhere++;
		} else {
			run->position = 0;
			in->bytes += take;
		}
		run->address = c->run->address + c->skip;
		run->length = take;
		c->skip += take;
		if (c->skip == c->run->length) {
			c->run++;
			c->skip = 0;
		}
	}
}
