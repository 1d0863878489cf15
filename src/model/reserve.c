/* SPDX-License-Identifier: Apache-2.0 */
#include "model/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "image/room.h"
#include "model/ahead.h"

/* In front stands what is known of the state: a hole at first, which the image may keep. */
#define FIRST (1ull << 20)
/* The caller waits for the end of one. */
#define PIECE (2ull << 20)
/* Of the memory: an image with many zeros or equal pages is smaller, and what is reserved is gone
 * for others. */
#define SHARE 8

void reserve_open(struct reserve *r, int fd)
{
	*r = RESERVE_NONE;
	if (room_by_pages(fd))
		*r = (struct reserve){.fd = fd, .next = FIRST, .end = FIRST};
}

/* Failing is no failure, here or anywhere below: what is missing is told when it is written. */
static void reserve_piece(void *arg, size_t i)
{
	struct reserve *r = arg;

	(void)i;
	if (r->next + PIECE > r->end)
		return;
	if (fallocate(r->fd, FALLOC_FL_KEEP_SIZE, (off_t)r->next, PIECE) == 0)
		r->next += PIECE;
	else
		r->end = 0;
}

void reserve_begin(struct reserve *r, uint64_t bytes)
{
	if (!r || r->fd < 0 || r->thread)
		return;
	if (r->end && r->end < FIRST + bytes / SHARE)
		r->end = FIRST + bytes / SHARE;
	if (r->next + PIECE <= r->end)
		r->thread = ahead_new(0);
	if (r->thread)
		ahead_begin(r->thread, 0, (r->end - r->next) / PIECE, reserve_piece, r);
}

void reserve_end(struct reserve *r)
{
	if (!r)
		return;
	ahead_end(r->thread);
	r->thread = NULL;
}

void reserve_leave(const struct reserve *r, uint64_t end)
{
	if (r->fd >= 0 && r->next > FIRST && end > FIRST)
		ignore(fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FIRST,
				 (off_t)(end - FIRST)),
		       "it costs memory, no more");
}

void reserve_close(struct reserve *r)
{
	struct stat st;

	if (!r)
		return;
	reserve_end(r);
	/* shmem_setattr(): to the same size, for what was reserved behind it */
	if (r->fd >= 0 && r->next > FIRST && fstat(r->fd, &st) == 0 &&
	    (uint64_t)st.st_size < r->next)
		ignore(ftruncate(r->fd, st.st_size), "it costs memory, no more");
	*r = RESERVE_NONE;
}
