/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_FILE_ROOM_H
#define REPRISE_FS_FILE_ROOM_H

#include <sys/stat.h>

#include "core/scratch.h"
#include "core/vec.h"
#include "image/image.h"

/* Room that a file has where nothing was written to it, also behind its end (fallocate(2)). */

/* Where its contents are, as runs that begin at `base`, in pages. */
struct file_contents {
	const struct page_run *runs;
	size_t n;
	uint64_t base;
};

struct file_room {
	size_t n; /* start and length of each part, in turn */
	uint64_t *parts;
	bool all; /* contents and parts are all of the file, up to its size */
};

/* 1: it is told; 0: of such a file nothing tells; or -ENOMEM. The parts are memory of s. */
int file_room_find(int fd, const struct file_contents *data, struct scratch *s,
		   struct file_room *ret) must_check;
/* Does a file in memory have all of its pages, as its blocks say, which count those behind its end?
 * -1: it cannot be known. */
int file_room_is_full(int fd, const struct stat *st);
bool file_room_valid(size_t n, const uint64_t *parts);
/*
 * Where the file system knows of no such thing, there is none: that is no error. Not what lies
 * before `from`, where all is reserved: in memory, room that is reserved twice is data
 * (shmem_get_folio_gfp()).
 */
int file_room_reserve(int fd, uint64_t from, size_t n, const uint64_t *parts) must_check;

#endif
