/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_ROOM_H
#define REPRISE_IMAGE_ROOM_H

#include "image/stream.h"

/*
 * Room in a file of tmpfs that is to be written, made of huge pages ahead of the writing. Of what
 * a write to tmpfs costs two thirds are for getting, charging and linking one page of 4 KiB after
 * the other; a huge page costs the zeroing. MADV_COLLAPSE makes them where the administrator has
 * not forbidden them ("deny"), whatever tmpfs does by itself. All of this is an offer: where it is
 * not to be had, writes find the file as it was.
 */
struct file_room {
	bool off;
	uint64_t end;	   /* of what is there, an offset in the image; 0: nothing yet */
	uint64_t piece;	   /* how much to make next */
	uint64_t ns, made; /* what it took until now */
};

/* For a file that has just been opened for writing. */
void room_begin(struct file_room *r, const struct stream *s);
/* at: where the next write goes; written: how much has been written there; most: as far as it will
 * go, about. */
bool room_wanted(const struct file_room *r, uint64_t at, uint64_t written, uint64_t most);
/* Whether room is to be made in single pages instead, for an empty file. */
bool room_by_pages(int fd);
/* One thread at a time, while nobody else writes. */
void room_make(struct file_room *r, const struct stream *s, uint64_t at, uint64_t most);
/* Cuts what was not needed; len: of the image. */
int room_end(const struct file_room *r, const struct stream *s, uint64_t len,
	     struct error *e) must_check;

#endif
