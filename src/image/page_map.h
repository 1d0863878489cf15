/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_PAGE_MAP_H
#define REPRISE_IMAGE_PAGE_MAP_H

#include "image/image.h"

/*
 * Where each page stands in an image that is a regular file: random access, for any number of
 * threads at once. To make the map, all of the image is read but the data of pages; their digest
 * is verified, and thereby the checksums by which the data are, when they are read.
 */
struct page_map;

/* Reads the file by position, from where its own is; the descriptor is the map's from now on. */
int page_map_open(struct page_map **ret, int fd, struct error *e) must_check;
void page_map_free(struct page_map *m); /* accepts NULL */
/* Its header and records. */
const struct image_reader *page_map_reader(const struct page_map *m);
const struct image_totals *page_map_totals(const struct page_map *m);
/* Has the image this digest, or stands it for one that has? */
bool page_map_is(const struct page_map *m, const uint8_t digest[32]);

enum page_kind_of_place {
	PLACE_NONE,   /* the image has no such page */
	PLACE_ZERO,   /* all zero */
	PLACE_PARENT, /* as in the parent */
	PLACE_DATA,
};

struct page_place {
	enum page_kind_of_place kind;
	uint64_t length; /* for how many bytes from the address on this holds; data follow */
	size_t table;	 /* number of the frame that says so, */
	size_t frame;	 /* and of that which has the data, at this place when unpacked */
	uint64_t at;
};
/* Has the checksum of a frame been verified? */
bool page_map_checked(const struct page_map *m, size_t frame);

/* Any stage: the last one in which the page is there, which is what the object held in the end. */
#define PAGE_MAP_LAST UINT32_MAX
void page_map_find(const struct page_map *m, uint64_t object, uint32_t stage, uint64_t address,
		   struct page_place *ret);

/* The groups in the order of the image, and their pages, ascending. false past the last. */
bool page_map_group(const struct page_map *m, size_t i, struct page_group *ret);
/* To be freed by the caller. */
int page_map_runs(const struct page_map *m, const struct page_group *group, struct page_run **ret,
		  size_t *ret_n, struct error *e) must_check;

/* A frame that was read, verified and unpacked. */
struct page_buffer {
	uint8_t *buf; /* to be freed */
	size_t room;
	const uint8_t *data; /* in buf */
	size_t length;
};
struct pages_codec;
int page_map_load(const struct page_map *m, size_t frame, struct pages_codec *codec,
		  struct page_buffer *buffer, struct error *e) must_check;

/*
 * Of a place with data: reads only that, and verifies nothing; 1, or 0 if it is compressed. What
 * is equal to a page is right without that.
 */
int page_map_peek(const struct page_map *m, const struct page_place *place, void *buf, size_t len,
		  struct error *e) must_check;

/* Reads and verifies every frame. */
int page_map_verify(const struct page_map *m, struct error *e) must_check;
/* The first run from *i on that is said to be in the parent; *i is moved behind it. */
bool page_map_in_parent(const struct page_map *m, size_t *i, uint64_t *ret_object,
			struct page_run *ret);

#endif
