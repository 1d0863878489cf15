/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_OBJECTS_H
#define REPRISE_CORE_OBJECTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"

/*
 * The only place that knows what has been seen before. An object is named by
 * its kind and a 128-bit identity that its kind derives from the kernel (device
 * and inode; a kcmp class and a rank). Ids are small numbers from 1 up, unique over all kinds.
 */
struct objects;

int objects_new(struct objects **ret);
void objects_free(struct objects *o);

/*
 * The id of object <kind, a, b>: *ret_new tells whether this is its first sight. Every call counts
 * as one use. Returns 0 or -ENOMEM.
 */
int objects_get(struct objects *o, uint32_t kind, uint64_t a, uint64_t b, uint64_t *ret_id,
		bool *ret_new) must_check;
/* Looks without adding: 0 if unknown. */
uint64_t objects_find(const struct objects *o, uint32_t kind, uint64_t a, uint64_t b);
/* How often it was asked for. */
uint64_t objects_users(const struct objects *o, uint64_t id);
/* A fresh id without identity. */
uint64_t objects_fresh(struct objects *o);

/*
 * Identity by kcmp(2): things that only the kernel can compare (open file
 * descriptions, tables). Candidates are first told apart by `hash` (anything cheap that equal
 * objects have in common), then compared by kcmp with a search tree in each bucket. `type` is
 * KCMP_*; tid and index name the thing.
 */
struct kcmp_index;
int kcmp_index_new(struct kcmp_index **ret, int type);
void kcmp_index_free(struct kcmp_index *k);
/* *ret_class is equal for equal things, counted from 1. Returns 0 or a negative errno (-ESRCH,
 * -EPERM, -ENOMEM). */
int kcmp_index_get(struct kcmp_index *k, uint64_t hash, pid_t tid, unsigned long index,
		   uint64_t *ret_class, bool *ret_new) must_check;
/* The same of something which, as the caller knows, is none of those that were given to this
 * function before: it is compared with what was given to the other one only, and with these when
 * the other one needs them. */
int kcmp_index_get_apart(struct kcmp_index *k, uint64_t hash, pid_t tid, unsigned long index,
			 uint64_t *ret_class, bool *ret_new) must_check;

#endif
