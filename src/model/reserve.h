/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MODEL_RESERVE_H
#define REPRISE_MODEL_RESERVE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Pages for the image, on a tmpfs, while one thread waits for the kernel before anything can be
 * written: another one has fallocate() get, charge and link them. A write into pages that are there
 * takes half the time, and writes are what a checkpoint waits for, since they hold the lock of the
 * inode one after the other. The file does not get any longer by it.
 */
struct reserve {
	int fd;	       /* of the image, the caller's; -EBADF: nothing is to be had */
	uint64_t next; /* where the next pages go */
	uint64_t end;  /* no further, see reserve_begin() */
	struct ahead *thread;
};

#define RESERVE_NONE ((struct reserve){.fd = -EBADF})

/* For a file that nothing has been written to yet. */
void reserve_open(struct reserve *r, int fd);
/* While the caller does something else; bytes: as much memory there is to be saved, at least. NULL
 * is allowed, here and below. */
void reserve_begin(struct reserve *r, uint64_t bytes);
void reserve_end(struct reserve *r);
/* Gives back what lies in front of an offset, where the file is to have a hole. */
void reserve_leave(const struct reserve *r, uint64_t end);
/* Gives back what lies behind the end of the file. */
void reserve_close(struct reserve *r);

#endif
