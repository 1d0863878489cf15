/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/cleanup.h"
#include "image/writer.h"

/*
 * What is written before the state part is known: a hole is left in front, which becomes the state
 * part and a PAD frame. The digest takes frames in the order of the file, so that headers of early
 * ones wait for it here.
 */

#define MOVE_PIECE (1u << 20)

int image_early_begin(struct image_writer *w, uint64_t room)
{
	struct error e = {};
	int flags, r;

	if (w->phase != WRITER_STATE || w->early.room)
		return -EINVAL;
	/* what is there already would be found in the hole */
	if (!w->out.positioned || w->out.size)
		return -EOPNOTSUPP;
	/* if the room is too small, frames are read and written elsewhere */
	flags = fcntl(w->out.fd, F_GETFL);
	if (flags < 0 || (flags & O_ACCMODE) != O_RDWR)
		return -EOPNOTSUPP;
	r = pages_writer_new(&w->pages, w, &e);
	if (r < 0)
		return r;
	w->early.room = align_up(room, IMAGE_PAGE);
	w->offset = w->early.room;
	return 0;
}

void image_early_of(struct image_writer *w, uint64_t parent_object)
{
	w->early.parent = parent_object;
}

bool image_has_early(const struct image_writer *w)
{
	return w->early.room;
}

int image_early_drop(struct image_writer *w, struct error *e)
{
	if (!w->early.room)
		return 0;
	pages_writer_free(w->pages);
	w->pages = NULL;
	vec_free(&w->early.frames);
	w->totals.page_bytes = 0;
	w->early.room = 0;
	w->offset = 0;
	if (ftruncate(w->out.fd, (off_t)w->out.base) < 0)
		return error_errno(e, -errno, E_OUTPUT, "cannot cut the image file");
	room_begin(&w->ahead, &w->out);
	return 0;
}

/* Moves all early frames up, from the last to the first. */
static int move_up(struct image_writer *w, uint64_t by, struct error *e)
{
	_cleanup_(free_ptr) uint8_t *buf = malloc(MOVE_PIECE);
	uint64_t at = w->offset;

	if (!buf)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory to move pages");
	while (at > w->early.room) {
		uint64_t left = at - w->early.room, len = left < MOVE_PIECE ? left : MOVE_PIECE;
		ssize_t n;
		int r;

		at -= len;
		n = stream_read(&w->out, buf, len, at, e);
		if (n < 0)
			return (int)n;
		if ((uint64_t)n < len)
			return error_set(e, -EIO, E_OUTPUT, "the image file was cut by others");
		r = stream_write(&w->out, buf, len, at + by, e);
		if (r < 0)
			return r;
	}
	vec_for_each (f, &w->early.frames)
		f->offset += by;
	w->offset += by;
	w->early.room += by;
	return 0;
}

/* A frame of zeros of any length, without having them in memory. */
static int seal_zeros(struct frame *f)
{
	static const uint8_t zeros[64 << 10];
	XXH3_state_t *state = XXH3_createState();

	if (!state)
		return -ENOMEM;
	f->checksum = 0;
	XXH3_64bits_reset(state);
	XXH3_64bits_update(state, f, sizeof(*f));
	for (uint64_t at = 0; at < f->length; at += sizeof(zeros))
		XXH3_64bits_update(state, zeros,
				   f->length - at < sizeof(zeros) ? f->length - at : sizeof(zeros));
	f->checksum = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	return 0;
}

/* Nothing but zeros stands behind the state part: in the hole, or else they are written. */
static int fill_room(struct image_writer *w, bool moved, struct error *e)
{
	struct frame f = {.type = FRAME_PAD};
	uint64_t left = w->early.room - w->state_len;
	size_t room = moved ? left : sizeof(f);
	uint8_t *p = realloc(w->state, w->state_len + room);

	f.length = left - sizeof(f);
	if (p)
		w->state = p;
	if (!p || seal_zeros(&f) < 0)
		return error_set(e, -ENOMEM, E_NO_MEMORY, "no memory for the state part");
	memset(w->state + w->state_len, 0, room);
	memcpy(w->state + w->state_len, &f, sizeof(f));
	w->state_len += room;
	writer_digest(w, &f, NULL, NULL);
	return 0;
}

int early_close(struct image_writer *w, struct error *e)
{
	uint64_t needed = align_up(w->state_len + sizeof(struct frame), IMAGE_PAGE);
	bool move = needed > w->early.room;
	int r = pages_writer_drain(w->pages, e);

	if (r >= 0 && move)
		r = move_up(w, needed - w->early.room, e);
	if (r >= 0)
		r = fill_room(w, move, e);
	if (r < 0)
		return r;
	vec_for_each (f, &w->early.frames)
		writer_digest(w, &f->frame, &f->pages, f->strong);
	return 0;
}
