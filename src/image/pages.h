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
#define PAGES_BLOCK	      (256u << 10)
#define PAGES_BLOCK_RUNS      (PAGES_BLOCK / IMAGE_PAGE)
/* Beside these, runs whose contents are elsewhere already. */
#define PAGES_BLOCK_ELSEWHERE 120
#define PAGES_ELSEWHERE_BYTES (16u << 20)
#define PAGES_BLOCK_MAX	      (IMAGE_PAGE + PAGES_BLOCK) /* bytes of the frame */
static_assert(PAGES_HEAD + PAGES_BLOCK_RUNS * sizeof(struct pages_run) +
			      PAGES_BLOCK_ELSEWHERE * (sizeof(struct pages_run) + 8) +
			      IMAGE_DIGEST_SIZE <=
		      IMAGE_PAGE,
	      "head");
static_assert(PAGES_BLOCK <= PAGES_DATA_MAX, "format");

struct pages_input {
	uint32_t type; /* FRAME_PAGES or FRAME_EARLY */
	struct page_group group;
	/* position: 0, PAGE_ZERO, or the offset of an EARLY frame */
	struct page_run runs[PAGES_BLOCK_RUNS + PAGES_BLOCK_ELSEWHERE];
	size_t nruns, elsewhere;
	uint64_t bytes; /* to be read, at most PAGES_BLOCK */
	uint64_t bytes_elsewhere;
};

/* Compressors and a buffer, kept from frame to frame; for one thread at a time. */
struct pages_codec {
	enum image_compress compress;
	int level;
	bool packed; /* data are not aligned */
	bool strong; /* with a digest of all */
	/* Of an incremental image: where the rest of its contents is, and under which id. */
	const struct image_parent *parent;
	const struct page_chain *parents; /* NULL: not given */
	uint64_t parent_object;		  /* 0: the parent has nothing of the kind */
	struct page_cursor *cursor;	  /* made when it is needed */
	void *peeked;			  /* pages of the parent, read alone */
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

/* The runs behind the headers; NULL if they are right. */
const char *pages_check_runs(const struct frame *f, const struct pages_header *p, bool incremental,
			     uint64_t *ret_pages);
/* Of an intact frame: its data, in the frame or in c->raw. */
int pages_unpack(struct pages_codec *c, const uint8_t *frame, uint64_t offset, const uint8_t **ret,
		 struct error *e) must_check;
/* Delivers a run that has to be looked for in the parent. */
int pages_from_parent(struct pages_codec *c, const struct pages_run *run, page_sink sink, void *arg,
		      struct error *e) must_check;
/* What the parent holds at an address, which may be found to be good for what follows. */
struct pages_same {
	uint64_t start, end;
	const uint8_t *data; /* NULL: zero, or nothing */
};
/* Does it hold this page there, the first of so many bytes to be asked for? By contents alone: it
 * does not matter why they are equal. */
int pages_same_in_parent(struct pages_codec *c, struct pages_same *same, uint64_t address,
			 uint64_t left, const void *page, struct error *e) must_check;

struct early_frame {
	uint64_t offset; /* 0: none */
	uint8_t *buf;
	size_t room;
	const uint8_t *data; /* unpacked; NULL: not yet */
	struct pages_codec codec;
};
/*
 * Where a reader finds EARLY frames: 1 and the intact frame at an offset, whose headers were
 * checked; 0: there is none.
 */
struct pages_early {
	int (*find)(void *arg, uint64_t offset, struct early_frame **ret, struct error *e);
	void *arg;
	uint64_t from, to; /* only runs that overlap this are delivered; to == 0: all */
};
void early_frame_free(struct early_frame *f);

/* Checks the two headers: limits alone, and what they say about each other. NULL if all is well. */
const char *pages_check_head(const struct frame *f, const struct pages_header *p);
/*
 * Takes an intact frame apart: checks the runs, decompresses, feeds the sink (which may be NULL),
 * counts. `offset` is that of the frame in the image.
 */
int pages_deliver(struct pages_codec *c, const uint8_t *frame, uint64_t offset,
		  const struct pages_early *early, page_sink sink, void *arg, uint64_t *ret_pages,
		  struct error *e) must_check;
/* The same for a frame that no run refers to: only checked. */
int pages_check_early(struct early_frame *f, struct error *e) must_check;

#endif
