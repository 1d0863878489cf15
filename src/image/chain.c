/* SPDX-License-Identifier: Apache-2.0 */
#include "image/chain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/vec.h"
#include "image/pages.h"

struct link {
	struct page_map *map;
	char *name;
};

struct page_chain {
	VEC(struct link) links;
};

/*
 * As many frames as a chain is likely to be long: a range of addresses has its pages in one frame
 * of each image.
 */
#define CURSOR_FRAMES 8

struct loaded {
	const struct page_map *map;
	size_t frame;
	struct page_buffer buffer;
	uint64_t used;
};

struct page_cursor {
	struct loaded frames[CURSOR_FRAMES];
	struct pages_codec codec;
	uint64_t clock;
};

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the parents of the image");
}

int page_chain_new(struct page_chain **ret, struct error *e)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : no_memory(e);
}

void page_chain_free(struct page_chain *c)
{
	if (!c)
		return;
	vec_for_each (l, &c->links) {
		page_map_free(l->map);
		free(l->name);
	}
	vec_free(&c->links);
	free(c);
}

int page_chain_add(struct page_chain *c, struct page_map *map, const char *name, struct error *e)
{
	_cleanup_(free_ptr) char *copy = strdup(name);
	struct link *l = copy ? vec_push(&c->links) : NULL;

	if (!l)
		return no_memory(e);
	*l = (struct link){map, take_ptr(&copy)};
	return 0;
}

size_t page_chain_length(const struct page_chain *c)
{
	return c->links.n;
}

const struct page_map *page_chain_at(const struct page_chain *c, size_t i)
{
	return i < c->links.n ? c->links.v[i].map : NULL;
}

const char *page_chain_name(const struct page_chain *c, size_t i)
{
	return i < c->links.n ? c->links.v[i].name : NULL;
}

int page_cursor_new(struct page_cursor **ret, struct error *e)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : no_memory(e);
}

void page_cursor_free(struct page_cursor *cursor)
{
	if (!cursor)
		return;
	for (size_t i = 0; i < CURSOR_FRAMES; i++)
		free(cursor->frames[i].buffer.buf);
	pages_codec_free(&cursor->codec);
	free(cursor);
}

static int cursor_load(struct page_cursor *cursor, const struct page_map *map, size_t frame,
		       const struct page_buffer **ret, struct error *e)
{
	struct loaded *oldest = &cursor->frames[0];
	int r;

	for (size_t i = 0; i < CURSOR_FRAMES; i++) {
		struct loaded *l = &cursor->frames[i];

		if (l->map == map && l->frame == frame) {
			l->used = ++cursor->clock;
			*ret = &l->buffer;
			return 0;
		}
		if (l->used < oldest->used)
			oldest = l;
	}
	oldest->map = NULL;
	r = page_map_load(map, frame, &cursor->codec, &oldest->buffer, e);
	if (r < 0)
		return r;
	oldest->map = map;
	oldest->frame = frame;
	oldest->used = ++cursor->clock;
	*ret = &oldest->buffer;
	return 0;
}

/* What is read from a frame that holds it has been verified with it. */
static int check_table(const struct link *l, struct page_cursor *cursor,
		       const struct page_place *place, struct error *e)
{
	const struct page_buffer *buffer;
	int r = 0;

	if ((place->kind != PLACE_DATA || place->table != place->frame) &&
	    !page_map_checked(l->map, place->table))
		r = cursor_load(cursor, l->map, place->table, &buffer, e);
	return r < 0 ? error_object(e, r, "%s", l->name) : 0;
}

/* From an image that has the data itself. */
static int read_data(const struct link *l, struct page_cursor *cursor,
		     const struct page_place *place, uint64_t length, const void **ret,
		     struct error *e)
{
	const struct page_buffer *buffer;
	int r = cursor_load(cursor, l->map, place->frame, &buffer, e);

	if (r >= 0 && (place->at > buffer->length || length > buffer->length - place->at))
		r = error_set(e, -EBADMSG, E_IMAGE_DAMAGED, "the image changes while it is read");
	if (r < 0)
		return error_object(e, r, "%s", l->name);
	*ret = buffer->data + place->at;
	return 1;
}

struct found {
	const struct link *link;
	struct page_place place; /* zero, or data */
	uint64_t length;	 /* so far all of it is there */
};

/*
 * Goes from image to image until one says what is at an address. 0: none does. cursor: verifies the
 * tables on the way; or NULL.
 */
static int find(const struct page_chain *c, struct page_cursor *cursor,
		const struct page_group *group, uint64_t address, uint64_t length,
		struct found *ret, struct error *e)
{
	struct page_group at = *group;

	ret->length = length;
	vec_for_each (l, &c->links) {
		int r;

		page_map_find(l->map, at.object, at.stage, address, &ret->place);
		if (ret->place.kind == PLACE_NONE)
			return 0;
		r = cursor ? check_table(l, cursor, &ret->place, e) : 0;
		if (r < 0)
			return r;
		if (ret->place.length < ret->length)
			ret->length = ret->place.length;
		ret->link = l;
		if (ret->place.kind == PLACE_ZERO || ret->place.kind == PLACE_DATA)
			return 1;
		at.object = image_reader_parent_object(page_map_reader(l->map), at.object);
		at.stage = PAGE_MAP_LAST;
	}
	return 0;
}

int page_chain_get(const struct page_chain *c, struct page_cursor *cursor,
		   const struct page_group *group, uint64_t address, uint64_t length,
		   const void **ret, uint64_t *ret_length, struct error *e)
{
	struct found f;
	int r = find(c, cursor, group, address, length, &f, e);

	if (r <= 0)
		return r;
	*ret_length = f.length;
	*ret = NULL;
	return f.place.kind == PLACE_ZERO ? 1
					  : read_data(f.link, cursor, &f.place, f.length, ret, e);
}

int page_chain_peek(const struct page_chain *c, const struct page_group *group, uint64_t address,
		    void *buf, uint64_t length, uint64_t *ret_length, struct error *e)
{
	struct found f;
	int r = find(c, NULL, group, address, length, &f, e);

	if (r <= 0)
		return r;
	*ret_length = f.length;
	if (f.place.kind == PLACE_ZERO)
		return PEEK_NOT;
	r = page_map_peek(f.link->map, &f.place, buf, f.length, e);
	if (r < 0)
		return error_object(e, r, "%s", f.link->name);
	return r ? 1 : PEEK_NOT;
}

int page_chain_verify(const struct page_chain *c, size_t i, struct error *e)
{
	const struct link *l = &c->links.v[i];
	int r = page_map_verify(l->map, e);
	struct page_place place;
	struct page_run run;
	uint64_t object;
	size_t at = 0;

	while (r >= 0 && page_map_in_parent(l->map, &at, &object, &run)) {
		object = image_reader_parent_object(page_map_reader(l->map), object);
		for (uint64_t done = 0; r >= 0 && done < run.length; done += place.length) {
			place.kind = PLACE_NONE;
			if (i + 1 < c->links.n)
				page_map_find(l[1].map, object, PAGE_MAP_LAST, run.address + done,
					      &place);
			if (place.kind == PLACE_NONE)
				r = error_set(e, -EINVAL, E_IMAGE_INVALID,
					      "its parent lacks the page at %#llx",
					      (unsigned long long)(run.address + done));
		}
	}
	return r < 0 ? error_object(e, r, "%s", l->name) : 0;
}
