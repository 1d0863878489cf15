/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_LAZY_SERVER_H
#define REPRISE_MM_LAZY_SERVER_H

#include <pthread.h>

#include "core/vec.h"
#include "mm/lazy.h"

/* The process that fills memory: lazy_server.c, and its threads that put pages into place:
 * lazy_work.c. */

struct waiting {
	struct lazy_space *space;
	uint64_t address;
};

struct frame_state {
	const struct image_later *f;
	uint64_t from, to; /* which of its addresses */
	uint64_t place;	   /* see image_part */
	uint32_t rank;	   /* the higher, the later it was written: see mm/lazy_order.h */
	bool done;	   /* put into all spaces there were */
	bool busy;
};

struct server {
	const struct lazy_start *start;
	struct image_reader *image;
	struct lazy_keeper keeper;
	int epoll, alarm, keeper_end;

	pthread_mutex_t lock;
	pthread_cond_t work;
	bool go;	 /* the tasks run */
	bool slow;	 /* for tests: much is missing when the application wants it */
	bool first_only; /* for tests: nothing comes but what comes first, and what is waited for */
	bool ended;
	struct error error;
	VEC(struct lazy_space *) spaces;
	VEC(struct waiting) waiting;
	VEC(struct frame_state) frames; /* by object and address */
	VEC(size_t) first;		/* frames that come first */
	size_t next_first, next, left;	/* left: not done yet */
	unsigned int busy;		/* threads at work */
};

/* The tasks will be ended. e may be empty. */
void server_fail(struct server *s, int err, const struct error *e);
/* What has happened in an address space by now. */
int server_read(struct server *s, struct lazy_space *space) must_check;
/* Spaces are added at any time, and never go. NULL past the last. */
struct lazy_space *server_space(struct server *s, size_t i);
/* The part of a frame that has a page, SIZE_MAX: none has. */
size_t server_frame(const struct server *s, uint64_t object, uint64_t address);
int server_start_workers(struct server *s) must_check;

#endif
