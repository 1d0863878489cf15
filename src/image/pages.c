/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <lz4.h>
#include <lz4hc.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "image/chain.h"
#include "image/pages.h"

void pages_codec_free(struct pages_codec *c)
{
	free(c->raw);
	free(c->lz4);
	free(c->peeked);
	page_cursor_free(c->cursor);
	ZSTD_freeCCtx(c->zstd_in);
	ZSTD_freeDCtx(c->zstd_out);
	*c = (struct pages_codec){};
}

static void *codec_raw(struct pages_codec *c)
{
	if (!c->raw)
		c->raw = aligned_alloc(IMAGE_PAGE, PAGES_DATA_MAX);
	return c->raw;
}

/* Most pages that are not zero show it in their first word. */
bool page_is_zero(const void *page)
{
	const uint64_t *p = page, *end = p + IMAGE_PAGE / sizeof(*p);

	if (*p)
		return false;
	for (; p < end; p += 8) {
		if (p[0] | p[1] | p[2] | p[3] | p[4] | p[5] | p[6] | p[7])
			return false;
	}
	return true;
}

/* The run table of a frame in the making, and the data behind it. */
struct table {
	struct pages_run *runs;
	uint32_t n, nplaced;
	uint8_t *data;
	size_t len;
	uint64_t placed[PAGES_BLOCK_ELSEWHERE]; /* offsets */
};

static void table_add(struct table *t, uint64_t address, uint32_t pages, uint32_t flags)
{
	struct pages_run *last = t->n ? &t->runs[t->n - 1] : NULL;

	if (last && last->flags == flags && flags != PAGES_RUN_PLACED &&
	    last->address + (uint64_t)last->pages * IMAGE_PAGE == address)
		last->pages += pages;
	else
		t->runs[t->n++] = (struct pages_run){address, pages, flags};
}

static void table_elsewhere(struct table *t, const struct page_run *run)
{
	uint32_t pages = run->length / IMAGE_PAGE;

	if (run->position & (PAGE_ZERO | PAGE_PARENT)) {
		table_add(t, run->address, pages,
			  run->position & PAGE_ZERO ? PAGES_RUN_ZERO : PAGES_RUN_PARENT);
		return;
	}
	table_add(t, run->address, pages, PAGES_RUN_PLACED);
	t->placed[t->nplaced++] = run->position;
}

/* Reads a run to the end of the data, and drops its pages that are zero or in the parent. */
static int table_read(struct table *t, struct pages_codec *c, const struct page_run *run,
		      page_source source, void *arg, struct error *e)
{
	uint8_t *from = t->data + t->len;
	struct pages_same same = {};
	int r;

	r = source(arg, run->address, from, run->length, e);
	if (r < 0)
		return r;
	for (uint64_t at = 0; at < run->length; at += IMAGE_PAGE, from += IMAGE_PAGE) {
		if (page_is_zero(from)) {
			table_add(t, run->address + at, 1, PAGES_RUN_ZERO);
			continue;
		}
		r = c->parent_object ? pages_same_in_parent(c, &same, run->address + at,
							    run->length - at, from, e)
				     : 0;
		if (r < 0)
			return r;
		if (r > 0) {
			table_add(t, run->address + at, 1, PAGES_RUN_PARENT);
			continue;
		}
		table_add(t, run->address + at, 1, 0);
		if (t->data + t->len != from)
			memcpy(t->data + t->len, from, IMAGE_PAGE);
		t->len += IMAGE_PAGE;
	}
	return 0;
}

/* As in lz4(1): the levels from 3 on are those of another search, into the same format. */
#define LZ4_SEARCH 3

static ssize_t compress_lz4(struct pages_codec *c, const void *raw, size_t len, void *out)
{
	bool search = c->level >= LZ4_SEARCH;

	if (!c->lz4)
		c->lz4 = malloc(search ? LZ4_sizeofStateHC() : LZ4_sizeofState());
	if (!c->lz4)
		return -ENOMEM;
	if (search)
		return LZ4_compress_HC_extStateHC(c->lz4, raw, out, len, len - 1, c->level);
	/* Acceleration is the opposite of a level. */
	return LZ4_compress_fast_extState(c->lz4, raw, out, len, len - 1,
					  c->level < 0 ? -c->level : 1);
}

/* Returns the compressed length, or 0 if it would not be shorter; a negative errno when out of
 * memory. */
static ssize_t compress(struct pages_codec *c, const void *raw, size_t len, void *out)
{
	size_t n;

	if (len <= 1)
		return 0;
	if (c->compress == COMPRESS_LZ4)
		return compress_lz4(c, raw, len, out);
	if (!c->zstd_in)
		c->zstd_in = ZSTD_createCCtx();
	if (!c->zstd_in)
		return -ENOMEM;
	n = ZSTD_compressCCtx(c->zstd_in, out, len - 1, raw, len, c->level ? c->level : 1);
	if (ZSTD_isError(n))
		return 0; /* the one reason is that it does not fit */
	return n;
}

static int place_data(struct pages_codec *c, struct pages_header *p, const struct table *t,
		      uint8_t *buf, struct error *e)
{
	ssize_t n;

	p->raw_length = t->len;
	p->stored_length = t->len;
	p->compression = COMPRESS_NONE;
	if (c->compress == COMPRESS_NONE) {
		if (buf + p->data_offset != t->data)
			memmove(buf + p->data_offset, t->data, t->len);
		return 0;
	}
	n = compress(c, t->data, t->len, buf + p->data_offset);
	if (n < 0)
		return error_set(e, n, E_NO_MEMORY, "no memory to compress pages");
	if (n > 0) {
		p->compression = c->compress;
		p->stored_length = n;
	} else {
		memcpy(buf + p->data_offset, t->data, t->len);
	}
	return 0;
}

int pages_build(struct pages_codec *c, const struct pages_input *in, page_source source, void *arg,
		uint8_t *buf, size_t *ret_size, struct error *e)
{
	struct frame *f = (struct frame *)buf;
	struct pages_header *p = (struct pages_header *)(f + 1);
	struct table t = {.runs = (struct pages_run *)(p + 1)};
	bool plain = c->compress == COMPRESS_NONE, aligned = plain && !c->packed;
	const struct page_run *last = &in->runs[in->nruns - 1];
	size_t head;
	int r;

	t.data = plain ? buf + IMAGE_PAGE : codec_raw(c);
	if (!t.data)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to compress pages");
	for (size_t i = 0; i < in->nruns; i++) {
		if (in->runs[i].position) {
			table_elsewhere(&t, &in->runs[i]);
			continue;
		}
		r = table_read(&t, c, &in->runs[i], source, arg, e);
		if (r < 0)
			return r;
	}
	memcpy(t.runs + t.n, t.placed, t.nplaced * sizeof(*t.placed));
	head = PAGES_HEAD + t.n * sizeof(*t.runs) + t.nplaced * sizeof(*t.placed);
	if (aligned)
		memset(buf + head, 0, IMAGE_PAGE - head);
	else if (c->strong)
		head += IMAGE_DIGEST_SIZE;
	*p = (struct pages_header){
		.stage = in->group.stage,
		.nruns = t.n,
		.data_offset = aligned ? IMAGE_PAGE : head,
		.first = in->runs[0].address,
		.end = last->address + last->length,
	};
	r = place_data(c, p, &t, buf, e);
	if (r < 0)
		return r;
	*f = (struct frame){
		.type = in->type,
		.id = in->group.object,
		.length = p->data_offset - sizeof(*f) + p->stored_length,
	};
	if (c->strong)
		frame_strong(buf, buf + frame_strong_at(p));
	*ret_size = frame_seal(buf);
	return 0;
}

const char *pages_check_head(const struct frame *f, const struct pages_header *p)
{
	if (f->flags)
		return "flags of a pages frame";
	if (f->type == FRAME_EARLY && (f->id || p->stage))
		return "object of an early frame";
	if (p->nruns == 0 || p->nruns > PAGES_RUNS_MAX)
		return "number of page runs";
	if (p->data_offset % 8 || p->data_offset > PAGES_DATA_OFFSET_MAX ||
	    p->data_offset < PAGES_HEAD + (uint64_t)p->nruns * sizeof(struct pages_run))
		return "offset of page data";
	if (p->raw_length > PAGES_DATA_MAX || p->raw_length % IMAGE_PAGE ||
	    p->stored_length > p->raw_length)
		return "length of page data";
	if (p->compression > PAGES_COMPRESS_MAX)
		return "compression of page data";
	if (p->compression == COMPRESS_NONE && p->stored_length != p->raw_length)
		return "length of page data";
	if (f->length != p->data_offset - sizeof(*f) + p->stored_length)
		return "length of a pages frame";
	if (p->first >= p->end || p->end > PAGES_ADDRESS_MAX || (p->first | p->end) % IMAGE_PAGE)
		return "range of a pages frame";
	return NULL;
}

const char *pages_check_runs(const struct frame *f, const struct pages_header *p, bool incremental,
			     uint64_t *ret_pages)
{
	const struct pages_run *runs = (const struct pages_run *)(p + 1);
	uint32_t known = PAGES_RUN_ZERO;
	uint64_t at = p->first, pages = 0, data = 0, placed = 0;

	/* what an early frame says to be in the parent, it does not have */
	if (incremental || f->type == FRAME_EARLY)
		known |= PAGES_RUN_PARENT;
	if (f->type != FRAME_EARLY)
		known |= PAGES_RUN_PLACED;
	if (runs[0].address != p->first)
		return "first page run";
	for (uint32_t i = 0; i < p->nruns; i++) {
		const struct pages_run *run = &runs[i];

		if (run->flags & ~known || (run->flags & (run->flags - 1)))
			return "flags of a page run";
		/* `at` and what is left up to `end` are below 2^63, so that nothing overflows */
		if (run->address % IMAGE_PAGE || run->address < at || run->address >= p->end ||
		    run->pages == 0 || run->pages > (p->end - run->address) / IMAGE_PAGE)
			return "order or length of page runs";
		at = run->address + (uint64_t)run->pages * IMAGE_PAGE;
		pages += run->pages;
		if (run->flags & PAGES_RUN_PLACED)
			placed++;
		else if (!run->flags)
			data += run->pages;
	}
	if (p->data_offset < PAGES_HEAD + p->nruns * sizeof(*runs) + placed * sizeof(uint64_t))
		return "offset of page data";
	if (at != p->end)
		return "last page run";
	if (data != p->raw_length / IMAGE_PAGE)
		return "page runs and length of their data differ";
	*ret_pages = pages;
	return NULL;
}

static const uint8_t *decompress(struct pages_codec *c, const struct pages_header *p,
				 const void *stored)
{
	if (p->compression == COMPRESS_LZ4) {
		if (LZ4_decompress_safe(stored, c->raw, p->stored_length, p->raw_length) !=
		    (int)p->raw_length)
			return NULL;
	} else if (ZSTD_decompressDCtx(c->zstd_out, c->raw, p->raw_length, stored,
				       p->stored_length) != p->raw_length) {
		return NULL;
	}
	return c->raw;
}

int pages_unpack(struct pages_codec *c, const uint8_t *frame, uint64_t offset, const uint8_t **ret,
		 struct error *e)
{
	const struct pages_header *p = (const struct pages_header *)(frame + sizeof(struct frame));
	const uint8_t *stored = frame + p->data_offset;

	*ret = stored;
	if (p->compression == COMPRESS_NONE)
		return 0;
	if (p->compression == COMPRESS_ZSTD && !c->zstd_out)
		c->zstd_out = ZSTD_createDCtx();
	if (!codec_raw(c) || (p->compression == COMPRESS_ZSTD && !c->zstd_out))
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to decompress pages");
	*ret = decompress(c, p, stored);
	if (!*ret)
		return error_set(e, -EBADMSG, E_IMAGE_DAMAGED,
				 "the pages at offset %llu cannot be decompressed",
				 (unsigned long long)offset);
	return 0;
}

/* ---- contents that stand elsewhere in the image ---- */

void early_frame_free(struct early_frame *f)
{
	pages_codec_free(&f->codec);
	free(f->buf);
}

static int wrong_pages(uint64_t offset, const char *wrong, struct error *e)
{
	return error_set(e, -EBADMSG, E_IMAGE_DAMAGED, "the pages at offset %llu are wrong: %s",
			 (unsigned long long)offset, wrong);
}

int pages_check_early(struct early_frame *early, struct error *e)
{
	const struct frame *f = (const struct frame *)early->buf;
	const struct pages_header *p = (const struct pages_header *)(f + 1);
	uint64_t pages;
	const char *wrong = pages_check_runs(f, p, false, &pages);

	if (early->data)
		return 0;
	if (wrong)
		return wrong_pages(early->offset, wrong, e);
	return pages_unpack(&early->codec, early->buf, early->offset, &early->data, e);
}

/* A run of another frame, all of which has to lie in one run of this one. */
static int deliver_early(const struct early_frame *early, const struct pages_run *run,
			 uint64_t offset, page_sink sink, void *arg, struct error *e)
{
	const struct pages_header *p =
		(const struct pages_header *)(early->buf + sizeof(struct frame));
	const struct pages_run *runs = (const struct pages_run *)(p + 1);
	const uint8_t *data = early->data;

	for (uint32_t i = 0; i < p->nruns; i++) {
		uint64_t skip = (run->address - runs[i].address) / IMAGE_PAGE;
		bool zero = runs[i].flags & PAGES_RUN_ZERO;

		if (run->address >= runs[i].address && skip < runs[i].pages) {
			if (run->pages > runs[i].pages - skip || (runs[i].flags & PAGES_RUN_PARENT))
				break;
			return sink(arg, run->address, zero ? NULL : data + skip * IMAGE_PAGE,
				    (uint64_t)run->pages * IMAGE_PAGE, e);
		}
		if (!runs[i].flags)
			data += (uint64_t)runs[i].pages * IMAGE_PAGE;
	}
	return wrong_pages(offset, "a run is not where it is said to be", e);
}

static int no_sink(void *arg, uint64_t address, const void *data, size_t len, struct error *e)
{
	return 0;
}

static int deliver_placed(const struct pages_early *from, const struct pages_run *run,
			  uint64_t place, uint64_t offset, page_sink sink, void *arg,
			  struct error *e)
{
	struct early_frame *early;
	int r = from->find(from->arg, place, &early, e);

	if (r == 0)
		return wrong_pages(offset, "there is no early frame where a run is said to be", e);
	if (r > 0)
		r = pages_check_early(early, e);
	return r < 0 ? r : deliver_early(early, run, offset, sink ? sink : no_sink, arg, e);
}

static int part_from_parent(struct pages_codec *c, const struct pages_run *run,
			    const struct pages_early *wanted, page_sink sink, void *arg,
			    struct error *e)
{
	uint64_t from = run->address, to = from + (uint64_t)run->pages * IMAGE_PAGE;
	struct pages_run part = *run;

	if (wanted->to && from < wanted->from)
		from = wanted->from;
	if (wanted->to && to > wanted->to)
		to = wanted->to;
	part.address = from;
	part.pages = (uint32_t)((to - from) / IMAGE_PAGE);
	return pages_from_parent(c, &part, sink, arg, e);
}

int pages_deliver(struct pages_codec *c, const uint8_t *frame, uint64_t offset,
		  const struct pages_early *early, page_sink sink, void *arg, uint64_t *ret_pages,
		  struct error *e)
{
	const struct frame *f = (const struct frame *)frame;
	const struct pages_header *p = (const struct pages_header *)(f + 1);
	const struct pages_run *runs = (const struct pages_run *)(p + 1);
	const uint64_t *place = (const uint64_t *)(runs + p->nruns);
	const uint8_t *data;
	const char *wrong;
	int r;

	wrong = pages_check_runs(f, p, c->parent, ret_pages);
	if (wrong)
		return wrong_pages(offset, wrong, e);
	r = pages_unpack(c, frame, offset, &data, e);
	for (uint32_t i = 0; r >= 0 && i < p->nruns; i++) {
		uint64_t len = (uint64_t)runs[i].pages * IMAGE_PAGE;
		bool zero = runs[i].flags & PAGES_RUN_ZERO;
		bool wanted = !early->to ||
			      (runs[i].address < early->to && runs[i].address + len > early->from);

		if (runs[i].flags & PAGES_RUN_PLACED) {
			if (wanted)
				r = deliver_placed(early, &runs[i], *place, offset, sink, arg, e);
			place++;
			continue;
		}
		if (runs[i].flags & PAGES_RUN_PARENT) {
			if (sink && wanted)
				r = part_from_parent(c, &runs[i], early, sink, arg, e);
			continue;
		}
		if (sink && wanted)
			r = sink(arg, runs[i].address, zero ? NULL : data, len, e);
		if (!zero)
			data += len;
	}
	return r < 0 ? r : 0;
}
