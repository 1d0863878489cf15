/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_PRECOPY_H
#define REPRISE_OPERATION_PRECOPY_H

#include "fs/inode.h"
#include "mm/track.h"
#include "model/checkpoint.h"

/*
 * Copies the memory of a tree into c->store while it runs, so that little is left to be copied when
 * it stands still for its checkpoint. An address space with less than TRACK_WORTH is not worth a
 * userfaultfd; all of it is worth the stops from PRECOPY_WORTH on.
 */
#define TRACK_WORTH    (2ull << 20)
#define PRECOPY_WORTH  (8ull << 20)
/* So much that is not tracked yet is left to the freeze. */
#define UNTRACKED_MOST (1ull << 20)

/*
 * c->freezer knows the root. Leaves the tracks, with what was copied, in *tracks; the tree runs. A
 * failure is none of the checkpoint: then all is copied later. max_freeze: 0, or the time that the
 * freeze may take, in ns. *stood: adds the time for which the tree stood still. all_known: what
 * there is to be tracked is, so that nothing has to be stopped for that. shared: is used up.
 */
int precopy(struct checkpoint *c, struct agent_found *found, struct mm_tracks *tracks,
	    struct memory_objects *shared, uint64_t max_freeze, bool all_known, uint64_t *stood,
	    struct error *e) must_check;

/* Which processes there are: another number if another set. */
uint64_t precopy_who(const struct freezer *f);

/* How long it takes to copy that much in the freeze, in ns, with something to spare. */
#define COPY_NS(bytes) ((bytes) / 2)

#endif
