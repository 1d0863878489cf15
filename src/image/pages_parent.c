/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "image/chain.h"
#include "image/pages.h"

/* Pages that an incremental image has in common with its parent: compared, and found again. */

/* What is looked up at once: as much as is compared at once. */
#define LOOK_AHEAD PAGES_BLOCK

/* Fewer pages than these are read alone, instead of the frames in which they stand. */
#define FEW (8 * IMAGE_PAGE)

/* 1; 0: there is none; or PEEK_NOT. */
static int peek(struct pages_codec *c, uint64_t address, uint64_t left, const void **ret,
		uint64_t *ret_length, struct error *e)
{
	const struct page_group group = {c->parent_object, PAGE_MAP_LAST};

	if (left > FEW)
		return PEEK_NOT;
	if (!c->peeked)
		c->peeked = aligned_alloc(IMAGE_PAGE, FEW);
	if (!c->peeked)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to compare pages");
	*ret = c->peeked;
	return page_chain_peek(c->parents, &group, address, c->peeked, left, ret_length, e);
}

static int look_up(struct pages_codec *c, struct pages_same *same, uint64_t address, uint64_t left,
		   struct error *e)
{
	const struct page_group group = {c->parent_object, PAGE_MAP_LAST};
	const void *data = NULL;
	uint64_t length = 0;
	int r = peek(c, address, left, &data, &length, e);

	if (r == PEEK_NOT) {
		r = c->cursor ? 0 : page_cursor_new(&c->cursor, e);
		if (r >= 0)
			r = page_chain_get(c->parents, c->cursor, &group, address, LOOK_AHEAD,
					   &data, &length, e);
	}
	if (r < 0)
		return error_object(e, r, "the parent");
	*same = (struct pages_same){address, address + length, data};
	return r;
}

int pages_same_in_parent(struct pages_codec *c, struct pages_same *same, uint64_t address,
			 uint64_t left, const void *page, struct error *e)
{
	if (address < same->start || address >= same->end) {
		int r = look_up(c, same, address, left, e);

		if (r <= 0)
			return r;
	}
	return same->data && memcmp(same->data + (address - same->start), page, IMAGE_PAGE) == 0;
}

int pages_from_parent(struct pages_codec *c, const struct pages_run *run, page_sink sink, void *arg,
		      struct error *e)
{
	const struct page_group group = {c->parent_object, PAGE_MAP_LAST};
	uint64_t at = run->address, end = at + (uint64_t)run->pages * IMAGE_PAGE, length;
	const void *data;
	int r = 0;

	if (!c->parents)
		return error_set(e, -ENOENT, E_PARENT_MISSING,
				 "the image is incremental, and its parent %s is not given",
				 c->parent->name);
	if (!c->cursor)
		r = page_cursor_new(&c->cursor, e);
	for (; r >= 0 && at < end; at += length) {
		r = page_chain_get(c->parents, c->cursor, &group, at, end - at, &data, &length, e);
		if (r == 0)
			return error_set(e, -EINVAL, E_IMAGE_INVALID,
					 "the page at %#llx is not in the parent %s, which is "
					 "said to have it",
					 (unsigned long long)at, c->parent->name);
		if (r > 0)
			r = sink(arg, at, data, length, e);
	}
	return r < 0 ? r : 0;
}
