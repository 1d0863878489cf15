/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_PAGES_H
#define REPRISE_IMAGE_PAGES_H

#include "image/frame.h"

/* One PAGES frame: made from memory, and taken apart again. No input or output, no threads. */

/*
 * What becomes one frame. Limited so that head and run table of the frame fit into one page however
 * zero and other pages alternate, and that the data stay in the cache while they are looked at,
 * summed and written.
 */
#define PAGES_BLOCK	 (256u << 10)
#define PAGES_BLOCK_RUNS (PAGES_BLOCK / IMAGE_PAGE)
#define PAGES_BLOCK_MAX	 (IMAGE_PAGE + PAGES_BLOCK) /* bytes of the frame */
static_assert(PAGES_HEAD + PAGES_BLOCK_RUNS * sizeof(struct pages_run) <= IMAGE_PAGE, "head");
static_assert(PAGES_BLOCK <= PAGES_DATA_MAX, "format");

struct pages_input {
	struct page_group group;
	struct page_run runs[PAGES_BLOCK_RUNS];
	size_t nruns;
	uint64_t bytes; /* at most PAGES_BLOCK */
};

/* Compressors and a buffer, kept from frame to frame; for one thread at a time. */
struct pages_codec {
	enum image_compress compress;
	int level;
	void *raw; /* PAGES_DATA_MAX bytes, when compressing or decompressing */
	void *lz4, *zstd_in, *zstd_out;
};
void pages_codec_free(struct pages_codec *c);

bool page_is_zero(const void *page);
/*
 * Makes a sealed frame in buf, which has room for PAGES_BLOCK_MAX. Without compression the
 * data begin at a multiple of the page size in buf, and the size is such a multiple.
 */
int pages_build(struct pages_codec *c, const struct pages_input *in, page_source source, void *arg,
		uint8_t *buf, size_t *ret_size, struct error *e) must_check;

/* Checks the two headers: limits alone, and what they say about each other. NULL if all is well. */
const char *pages_check_head(const struct frame *f, const struct pages_header *p);
/*
 * Takes an intact frame apart: checks the runs, decompresses, feeds the sink (which may be NULL),
 * counts. `offset` is that of the frame in the image.
 */
int pages_deliver(struct pages_codec *c, const uint8_t *frame, uint64_t offset, page_sink sink,
		  void *arg, uint64_t *ret_pages, struct error *e) must_check;

#endif
