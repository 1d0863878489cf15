/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_STORE_H
#define REPRISE_IMAGE_STORE_H

#include "image/image.h"

/*
 * Page contents between their being copied and their being written into the image: what is copied
 * while tasks stand still goes into memory, so that nothing is waited for; what does not fit there,
 * and what is copied while they run, into a file without a name.
 */
struct page_store;

#define STORE_NONE   UINT64_MAX /* no position */
#define STORE_MEMORY (40u << 20)
#define STORE_PIECE  (1u << 20) /* the most that is put at once */

/*
 * output: a descriptor beside whose file, if it is one, the file of the store is made; else in
 * $TMPDIR, /var/tmp or /tmp. If there is no room for one, there is none.
 */
int store_open_file(int output);
int store_new(struct page_store **ret, int output, struct error *e) must_check;
void store_free(struct page_store *s); /* accepts NULL */
/* Faults in as much memory, so that this costs nothing later. */
void store_warm(struct page_store *s, size_t bytes);
/* Bytes that the file can hold; 0 if there is none. */
uint64_t store_room(const struct page_store *s);
/* Forgets all that was put. */
void store_clear(struct page_store *s);

/*
 * Takes `len` bytes from `source`, at `address`. in_memory: as long as there is room. Not from
 * several threads at once.
 */
int store_put(struct page_store *s, bool in_memory, uint64_t address, size_t len,
	      page_source source, void *arg, uint64_t *ret_position, struct error *e) must_check;
/* Nothing is asked for twice: what has been taken from the file makes room in it. */
void store_read_once(struct page_store *s);
/* From any thread. */
int store_get(const struct page_store *s, uint64_t position, void *buf, size_t len,
	      struct error *e) must_check;

#endif
