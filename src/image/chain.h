/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_CHAIN_H
#define REPRISE_IMAGE_CHAIN_H

#include "image/page_map.h"

/*
 * The images behind an incremental one: its parent, the parent of that, and so on up to one that is
 * complete in itself. Read-only once it is made, and then for all threads.
 */
struct page_chain;

#define PAGE_CHAIN_MAX 256 /* images */

int page_chain_new(struct page_chain **ret, struct error *e) must_check;
void page_chain_free(struct page_chain *c); /* with the maps in it; accepts NULL */
/* Behind the last one; the map and its name are taken over on success. */
int page_chain_add(struct page_chain *c, struct page_map *map, const char *name,
		   struct error *e) must_check;
size_t page_chain_length(const struct page_chain *c);
/* The i-th, 0 being the nearest; NULL past the last. */
const struct page_map *page_chain_at(const struct page_chain *c, size_t i);
const char *page_chain_name(const struct page_chain *c, size_t i);

/* Frames that have been read, verified and unpacked, for one thread at a time. */
struct page_cursor;
int page_cursor_new(struct page_cursor **ret, struct error *e) must_check;
void page_cursor_free(struct page_cursor *cursor); /* accepts NULL */

/*
 * The contents of an object of the first image, from an address on: *ret_length bytes of them, at
 * most `length`, stand at *ret, which is NULL for zero pages, until the cursor is used again. 0:
 * the page is nowhere; else 1.
 */
int page_chain_get(const struct page_chain *c, struct page_cursor *cursor,
		   const struct page_group *group, uint64_t address, uint64_t length,
		   const void **ret, uint64_t *ret_length, struct error *e) must_check;

/* The same for a page or a few, copied to buf without being verified; PEEK_NOT: not in that way. */
#define PEEK_NOT 2
int page_chain_peek(const struct page_chain *c, const struct page_group *group, uint64_t address,
		    void *buf, uint64_t length, uint64_t *ret_length, struct error *e) must_check;

/* Reads the i-th image, and looks whether what it says of the next one is so. */
int page_chain_verify(const struct page_chain *c, size_t i, struct error *e) must_check;

#endif
