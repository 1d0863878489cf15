/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_STORE_H
#define REPRISE_IMAGE_STORE_H

#include "image/image.h"

/*
 * Page contents between their being copied and their being written into the image: what is copied
 * while tasks stand still goes into memory, so that nothing is waited for. What does not fit there,
 * and what is copied while they run, goes to its final place in the image (image_put_early()), or
 * if that is impossible, into a file without a name.
 */
struct page_store;

#define STORE_NONE   0 /* no position */
#define STORE_MEMORY (44u << 20)
#define STORE_PIECE  (1u << 20) /* the most that is put at once */

/* What stands in the image is put there with this position (struct page_run), and not read again.
 */
static inline bool store_in_image(uint64_t position)
{
	return position & (PAGE_EARLY | PAGE_ZERO | PAGE_PARENT);
}

/* A file without a name, or a negative errno. */
int store_open_file(int beside);
/*
 * output: a descriptor beside whose file, if it is one, the file of the store is made; else in
 * $TMPDIR, /var/tmp or /tmp. If there is no room for one, there is none. in_file: contents may
 * stand in such a file as they are.
 */
int store_new(struct page_store **ret, int output, bool in_file, struct error *e) must_check;
void store_free(struct page_store *s); /* accepts NULL */
/* From now on, in the image. Memory may grow with the `bytes` that are to be saved. */
void store_use_image(struct page_store *s, struct image_writer *w);
void store_expect(struct page_store *s, uint64_t bytes);
/* How much can still be kept in memory. */
size_t store_memory_left(const struct page_store *s);
/* Faults in as much memory, so that this costs nothing later. */
void store_warm(struct page_store *s, size_t bytes);
/* Memory into which comes what is put next; whatever stands there before does not matter. */
void *store_spare(struct page_store *s, size_t *ret_len);
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
/*
 * All of these runs, not into memory; runs ascend. Sources and `placed` as for image_put_early(),
 * parent_object as for image_early_of().
 */
int store_put_all(struct page_store *s, uint64_t parent_object, const struct page_run *runs,
		  size_t nruns, page_source source, page_placed placed, void *arg,
		  struct error *e) must_check;
/* Nothing is asked for twice: what has been taken from the file makes room in it. */
void store_read_once(struct page_store *s);
/* From any thread. */
int store_get(const struct page_store *s, uint64_t position, void *buf, size_t len,
	      struct error *e) must_check;

#endif
