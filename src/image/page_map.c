/* SPDX-License-Identifier: Apache-2.0 */
#include "image/page_map.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/vec.h"
#include "image/pages.h"
#include "image/reader.h"

/* Runs of all frames, sorted by object, stage and address. */
struct map_run {
	uint64_t object;
	uint32_t stage;
	uint32_t flags;
	uint64_t address, end;
	size_t table; /* the frame that it stands in */
	size_t frame; /* and that which has its data */
	uint64_t at;  /* in these */
};

struct map_frame {
	uint64_t offset;
	struct frame head;		   /* as it was when the digest was verified */
	uint8_t strong[IMAGE_DIGEST_SIZE]; /* likewise */
	atomic_bool checked;
	uint32_t data; /* where its data begin, unless they are compressed: 0 */
};

/* Groups that follow each other in the sorted runs. */
struct map_group {
	struct page_group group;
	size_t first, n;
};

struct page_map {
	int fd;
	struct image_reader *r;
	struct image_totals totals;
	VEC(struct map_frame) frames; /* the early ones first */
	VEC(struct map_run) runs;
	VEC(struct map_group) groups; /* by object and stage */
};

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for a map of pages");
}

void page_map_free(struct page_map *m)
{
	if (!m)
		return;
	image_reader_free(m->r);
	vec_free(&m->frames);
	vec_free(&m->runs);
	vec_free(&m->groups);
	close_fd(&m->fd);
	free(m);
}

static void map_free(struct page_map **m)
{
	page_map_free(*m);
}

const struct image_reader *page_map_reader(const struct page_map *m)
{
	return m->r;
}

const struct image_totals *page_map_totals(const struct page_map *m)
{
	return &m->totals;
}

bool page_map_is(const struct page_map *m, const uint8_t digest[32])
{
	const uint8_t *same;

	if (digest_equal(m->totals.digest, digest))
		return true;
	for (size_t i = 0; (same = image_reader_same(m->r, i)); i++)
		if (digest_equal(same, digest))
			return true;
	return false;
}

/* ---- making it ---- */

/* The head of a frame, with its runs and what follows them. */
struct head {
	uint64_t offset; /* 0: none */
	struct pages_header *p;
	size_t room;
};

static void head_free(struct head *h)
{
	free(h->p);
}

static int head_read(struct page_map *m, struct head *h, uint64_t offset,
		     const struct pages_header *known, struct error *e)
{
	/* all of it, as far as it can hold anything */
	size_t size = known->data_offset - sizeof(struct frame);
	int err;

	h->offset = 0;
	if (h->room < size) {
		free(h->p);
		h->room = size;
		h->p = malloc(size);
		if (!h->p) {
			h->room = 0;
			return no_memory(e);
		}
	}
	err = reader_take(m->r, h->p, size, offset + sizeof(struct frame), "a frame of pages", e);
	if (err < 0)
		return err;
	*h->p = *known; /* which has been checked */
	h->offset = offset;
	return 0;
}

/* The early frame in which a run stands. */
static int find_placed(struct page_map *m, struct head *early, uint64_t offset, struct map_run *run,
		       struct error *e)
{
	struct early_seen *seen = early_at(m->r, offset);
	const struct pages_run *runs;
	const char *wrong;
	uint64_t at = 0, pages;
	int r = 0;

	if (!seen)
		return reader_damaged(offset, "there is no early frame where a run is said to be",
				      e);
	if (early->offset != offset)
		r = head_read(m, early, offset, &seen->pages, e);
	if (r < 0)
		return r;
	wrong = pages_check_runs(&seen->frame, early->p, false, &pages);
	if (wrong)
		return reader_damaged(offset, wrong, e);
	runs = (const struct pages_run *)(early->p + 1);
	for (uint32_t i = 0; i < early->p->nruns; i++) {
		uint64_t end = runs[i].address + (uint64_t)runs[i].pages * IMAGE_PAGE;

		if (run->address >= runs[i].address && run->end <= end &&
		    !(runs[i].flags & PAGES_RUN_PARENT)) {
			run->frame = (size_t)(seen - m->r->early.frames.v);
			run->flags = runs[i].flags;
			run->at = at + (run->address - runs[i].address);
			return 0;
		}
		if (!runs[i].flags)
			at += end - runs[i].address;
	}
	return reader_damaged(offset, "a run is not where it is said to be", e);
}

static int add_runs(struct page_map *m, const struct head *h, struct head *early, struct error *e)
{
	const struct pages_run *runs = (const struct pages_run *)(h->p + 1);
	const uint64_t *place = (const uint64_t *)(runs + h->p->nruns);
	uint64_t at = 0;
	int r = 0;

	for (uint32_t i = 0; r >= 0 && i < h->p->nruns; i++) {
		uint64_t length = (uint64_t)runs[i].pages * IMAGE_PAGE;
		struct map_run *run = vec_push(&m->runs);

		if (!run)
			return no_memory(e);
		*run = (struct map_run){
			.object = m->r->next.id,
			.stage = h->p->stage,
			.flags = runs[i].flags,
			.address = runs[i].address,
			.end = runs[i].address + length,
			.table = m->frames.n - 1,
			.frame = m->frames.n - 1,
			.at = at,
		};
		if (runs[i].flags & PAGES_RUN_PLACED)
			r = find_placed(m, early, *place++, run, e);
		if (!runs[i].flags)
			at += length;
	}
	return r;
}

static int add_frame(struct page_map *m, uint64_t offset, const struct frame *head,
		     const struct pages_header *p, const uint8_t *strong, struct error *e)
{
	struct map_frame *f = vec_push(&m->frames);

	if (!f)
		return no_memory(e);
	*f = (struct map_frame){.offset = offset, .head = *head};
	memcpy(f->strong, strong, sizeof(f->strong));
	if (p->compression == COMPRESS_NONE)
		f->data = p->data_offset;
	return 0;
}

/* The frame that has been peeked at: its head is read, its data are passed over. */
static int take_frame(struct page_map *m, struct head *h, struct head *early, struct error *e)
{
	struct image_reader *r = m->r;
	const char *wrong;
	uint64_t pages;
	int err = head_read(m, h, r->offset, &r->next_pages, e);

	if (err < 0)
		return err;
	wrong = pages_check_runs(&r->next, h->p, r->parent, &pages);
	if (wrong)
		return reader_damaged(r->offset, wrong, e);
	err = add_frame(m, r->offset, &r->next, &r->next_pages, r->next_strong, e);
	if (err >= 0)
		err = add_runs(m, h, early, e);
	if (err < 0)
		return err;
	totals_add(&r->totals, h->p);
	return reader_taken(r, e);
}

/* All of them stand before the first of the others. */
static int list_early(struct page_map *m, struct error *e)
{
	int r = reader_peek(m->r, e);

	vec_for_each (seen, &m->r->early.frames) {
		seen->checked = true; /* once they are read */
		if (r >= 0)
			r = add_frame(m, seen->offset, &seen->frame, &seen->pages, seen->strong, e);
	}
	return r;
}

static int read_heads(struct page_map *m, struct error *e)
{
	_cleanup_(head_free) struct head h = {}, early = {};
	int r = list_early(m, e);

	while (r >= 0 && !m->r->at_end) {
		r = take_frame(m, &h, &early, e);
		if (r >= 0)
			r = reader_peek(m->r, e);
	}
	return r < 0 ? r : image_read_end(m->r, &m->totals, e);
}

static int by_place(const void *a, const void *b)
{
	const struct map_run *x = a, *y = b;

	if (x->object != y->object)
		return x->object < y->object ? -1 : 1;
	if (x->stage != y->stage)
		return x->stage < y->stage ? -1 : 1;
	return x->address < y->address ? -1 : x->address > y->address;
}

static int make_groups(struct page_map *m, struct error *e)
{
	struct map_group *g = NULL;

	if (m->runs.n)
		qsort(m->runs.v, m->runs.n, sizeof(*m->runs.v), by_place);
	for (size_t i = 0; i < m->runs.n; i++) {
		const struct map_run *run = &m->runs.v[i];

		if (!g || g->group.object != run->object || g->group.stage != run->stage) {
			g = vec_push(&m->groups);
			if (!g)
				return no_memory(e);
			*g = (struct map_group){{run->object, run->stage}, i, 0};
		} else if (run->address < run[-1].end) {
			return reader_damaged(m->frames.v[run->frame].offset,
					      "a page that is there twice", e);
		}
		g->n++;
	}
	/* whose order is that of the reader's index */
	if (m->groups.n != m->r->index.n)
		return reader_damaged(m->r->offset, "a group of pages that is there twice", e);
	return 0;
}

/* ---- finding ---- */

static const struct map_group *group_at(const struct page_map *m, uint64_t object, uint32_t stage)
{
	const struct map_group *v = m->groups.v;

	return v + bisect(m->groups.n, i,
			  v[i].group.object > object ||
				  (v[i].group.object == object && v[i].group.stage >= stage));
}

/* The first run of a group that ends behind the address; the end of the group if there is none. */
static size_t run_at(const struct page_map *m, const struct map_group *g, uint64_t address)
{
	return g->first + bisect(g->n, i, m->runs.v[g->first + i].end > address);
}

/* Does the group have the page? If not, ret->length tells how far it does not. */
static bool find_in(const struct page_map *m, const struct map_group *g, uint64_t address,
		    struct page_place *ret)
{
	size_t i = run_at(m, g, address);
	const struct map_run *run = &m->runs.v[i];
	uint64_t left;

	if (i == g->first + g->n)
		return false;
	left = (run->address > address ? run->address : run->end) - address;
	if (ret->length > left)
		ret->length = left;
	if (run->address > address)
		return false;
	ret->table = run->table;
	ret->frame = run->frame;
	ret->at = run->at + (address - run->address);
	ret->kind = run->flags & PAGES_RUN_ZERO	    ? PLACE_ZERO
		    : run->flags & PAGES_RUN_PARENT ? PLACE_PARENT
						    : PLACE_DATA;
	return true;
}

void page_map_find(const struct page_map *m, uint64_t object, uint32_t stage, uint64_t address,
		   struct page_place *ret)
{
	const struct map_group *g = group_at(m, object, stage);

	*ret = (struct page_place){.kind = PLACE_NONE, .length = UINT64_MAX};
	if (stage != PAGE_MAP_LAST) {
		if (g < m->groups.v + m->groups.n && g->group.object == object &&
		    g->group.stage == stage)
			find_in(m, g, address, ret);
		return;
	}
	if (g < m->groups.v + m->groups.n && g->group.object == object &&
	    find_in(m, g, address, ret))
		return;
	while (g > m->groups.v && g[-1].group.object == object)
		if (find_in(m, --g, address, ret))
			return;
}

bool page_map_group(const struct page_map *m, size_t i, struct page_group *ret)
{
	if (i >= m->r->index.n)
		return false;
	*ret = (struct page_group){m->r->index.v[i].object, m->r->index.v[i].stage};
	return true;
}

int page_map_runs(const struct page_map *m, const struct page_group *group, struct page_run **ret,
		  size_t *ret_n, struct error *e)
{
	const struct map_group *g = group_at(m, group->object, group->stage);
	struct page_run *runs;
	size_t n = 0;

	if (g == m->groups.v + m->groups.n || g->group.object != group->object ||
	    g->group.stage != group->stage)
		return error_set(e, -ENOENT, E_INTERNAL, "there is no such group of pages");
	runs = calloc(g->n, sizeof(*runs));
	if (!runs)
		return no_memory(e);
	for (size_t i = g->first; i < g->first + g->n; i++) {
		const struct map_run *run = &m->runs.v[i];

		if (n && runs[n - 1].address + runs[n - 1].length == run->address)
			runs[n - 1].length += run->end - run->address;
		else
			runs[n++] = (struct page_run){run->address, run->end - run->address};
	}
	*ret = runs;
	*ret_n = n;
	return 0;
}

/* ---- reading ---- */

static int reserve(struct page_buffer *b, size_t size)
{
	if (b->room >= size)
		return 0;
	free(b->buf);
	b->room = align_up(size, IMAGE_PAGE);
	b->buf = aligned_alloc(IMAGE_PAGE, b->room);
	if (b->buf)
		return 0;
	b->room = 0;
	return -ENOMEM;
}

/* The file may have been changed since its digest was verified. */
static bool is_as_it_was(const struct page_map *m, const struct map_frame *f, uint8_t *buf)
{
	const struct pages_header *p = (const struct pages_header *)(buf + sizeof(struct frame));
	uint64_t pages;

	return memcmp(buf, &f->head, sizeof(f->head)) == 0 && frame_intact(buf) &&
	       !pages_check_head(&f->head, p) &&
	       !pages_check_runs(&f->head, p, m->r->parent, &pages) &&
	       (!m->r->strong || frame_is(buf, f->strong));
}

bool page_map_checked(const struct page_map *m, size_t frame)
{
	return atomic_load_explicit(&m->frames.v[frame].checked, memory_order_relaxed);
}

int page_map_load(const struct page_map *m, size_t frame, struct pages_codec *codec,
		  struct page_buffer *b, struct error *e)
{
	struct map_frame *f = &m->frames.v[frame];
	size_t size = frame_size(&f->head);
	const struct pages_header *p;
	const uint8_t *data;
	int r = reserve(b, size);

	if (r < 0)
		return no_memory(e);
	r = reader_take(m->r, b->buf, size, f->offset, "a frame of pages", e);
	if (r < 0)
		return r;
	if (!is_as_it_was(m, f, b->buf))
		return reader_damaged(f->offset, "checksum of a frame of pages", e);
	atomic_store_explicit(&f->checked, true, memory_order_relaxed);
	p = (const struct pages_header *)(b->buf + sizeof(struct frame));
	b->length = p->raw_length;
	r = pages_unpack(codec, b->buf, f->offset, &data, e);
	if (r < 0)
		return r;
	if (data == b->buf + p->data_offset) {
		b->data = data;
		return 0;
	}
	/* what is unpacked next would overwrite it */
	if (reserve(b, b->length) < 0)
		return no_memory(e);
	memcpy(b->buf, data, b->length);
	b->data = b->buf;
	return 0;
}

int page_map_peek(const struct page_map *m, const struct page_place *place, void *buf, size_t len,
		  struct error *e)
{
	const struct map_frame *f = &m->frames.v[place->frame];
	int r;

	if (!f->data)
		return 0;
	r = reader_take(m->r, buf, len, f->offset + f->data + place->at, "a frame of pages", e);
	return r < 0 ? r : 1;
}

/*
 * Where an object has several stages, a page that is missing from one is looked for in another: so
 * what stands in the frames has to be certain.
 */
static int check_stages(struct page_map *m, struct error *e)
{
	struct pages_codec codec = {};
	struct page_buffer b = {};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < m->groups.n; i++) {
		const struct map_group *g = &m->groups.v[i];
		bool several = (i && g[-1].group.object == g->group.object) ||
			       (i + 1 < m->groups.n && g[1].group.object == g->group.object);

		for (size_t j = g->first; several && r >= 0 && j < g->first + g->n; j++)
			if (!page_map_checked(m, m->runs.v[j].table))
				r = page_map_load(m, m->runs.v[j].table, &codec, &b, e);
	}
	free(b.buf);
	pages_codec_free(&codec);
	return r;
}

int page_map_open(struct page_map **ret, int fd, struct error *e)
{
	_cleanup_(map_free) struct page_map *m = calloc(1, sizeof(*m));
	int r;

	if (!m) {
		close(fd);
		return no_memory(e);
	}
	m->fd = fd;
	r = image_reader_new(&m->r, fd, 1, e);
	if (r >= 0 && !m->r->in.positioned)
		r = error_set(e, -ESPIPE, E_IMAGE_OPEN, "is no regular file");
	if (r >= 0)
		r = read_heads(m, e);
	if (r >= 0)
		r = make_groups(m, e);
	if (r >= 0)
		r = check_stages(m, e);
	if (r < 0)
		return r;
	*ret = take_ptr(&m);
	return 0;
}

int page_map_verify(const struct page_map *m, struct error *e)
{
	struct pages_codec codec = {};
	struct page_buffer b = {};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < m->frames.n; i++)
		r = page_map_load(m, i, &codec, &b, e);
	free(b.buf);
	pages_codec_free(&codec);
	return r;
}

bool page_map_in_parent(const struct page_map *m, size_t *i, uint64_t *ret_object,
			struct page_run *ret)
{
	while (*i < m->runs.n) {
		const struct map_run *run = &m->runs.v[(*i)++];

		if (!(run->flags & PAGES_RUN_PARENT))
			continue;
		*ret_object = run->object;
		*ret = (struct page_run){run->address, run->end - run->address};
		return true;
	}
	return false;
}
