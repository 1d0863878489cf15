/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_STREAM_H
#define REPRISE_IMAGE_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "image/progress.h"

/*
 * The descriptor under an image. A regular file is accessed by position, from
 * where its own position stood at first; it is moved behind the image at the end. Everything else
 * is a stream, and touched by the calling thread alone.
 */
struct stream {
	int fd;
	bool positioned; /* a regular file */
	bool socket;
	uint64_t base; /* position of the image in the file */
	uint64_t size; /* of what the file holds from base on, when it was opened */
	/* Asked when a signal arrived, or the other side is slow. May be NULL. */
	struct progress *progress;
};

int stream_open_output(struct stream *s, int fd, struct error *e) must_check;
int stream_open_input(struct stream *s, int fd, struct error *e) must_check;

/* `offset` is that in the image; a stream takes what comes in order. All of it or an error. */
int stream_write(const struct stream *s, const void *buf, size_t len, uint64_t offset,
		 struct error *e) must_check;
/* Returns what there is up to `len`: less only at the end of the file. */
ssize_t stream_read(const struct stream *s, void *buf, size_t len, uint64_t offset,
		    struct error *e) must_check;
/* Leaves the file position behind the image. */
int stream_finish(const struct stream *s, uint64_t len, struct error *e) must_check;

#endif
