/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_TRACK_H
#define REPRISE_MM_TRACK_H

#include "core/vec.h"
#include "image/store.h"
#include "mm/state.h"

/*
 * Which pages of a running task are written. Its private anonymous memory is registered with a
 * userfaultfd in the mode of asynchronous write protection: the kernel itself lifts the protection
 * of a page at the first write, and PAGEMAP_SCAN tells where. The task notices nothing; no fault
 * waits for us; when the last descriptor of the userfaultfd is closed, if only by our death, all is
 * as before.
 *
 * A page of which a copy was made after it had been protected is copied again unless it is still
 * protected, at the same place, when the tasks stand still. Whatever makes another page appear
 * there brings an unprotected one: a write, fork's copies, mremap(), madvise(), a new mapping or a
 * new program. Only what writes to a page without its page table entry would be missed: direct I/O
 * and the like, which pins pages. A stop of all tasks between protecting and copying makes sure
 * that no such system call of theirs is under way that began before.
 *
 * There is a trap. mremap() of a registered mapping takes the registration from the new one. If
 * that is merged with its neighbour (possible as long as it is empty: vma_merge_copied_range()), it
 * takes it from the neighbour too (mremap_userfaultfd_prep()), whose pages keep the mark of
 * protection but can be written, the mark staying. So a copy counts only where the mapping is
 * registered, and what has lost its registration is never registered again.
 *
 * Memory that is shared is not tracked, since it is written through other page tables as well;
 * private mappings of files neither: there a marker without a page behind it looks like one that
 * was not written (zap_install_uffd_wp_if_needed()).
 */
struct mm_track {
	pid_t tid;
	uint64_t start_time;   /* of that task */
	uint64_t parent;       /* its address space in the parent of the image, 0 none */
	int uffd;	       /* of its address space */
	struct span_vec spans; /* what is registered; sorted */
	struct span_vec ever;  /* what ever was; sorted */
	struct span_vec todo;  /* found by the last look */
	struct kept_spans kept;
	struct vma_list vmas; /* as they were at the last look */
};

struct mm_tracks {
	VEC(struct mm_track) v;
};

/* Pages shared by relatives that have been copied in a pass. */
struct page_seen {
	uint64_t *v; /* open addressing */
	size_t n, size;
};
void page_seen_free(struct page_seen *seen);

/* uffd: a new userfaultfd of the task's address space, owned from now on. */
int track_begin(struct mm_tracks *tracks, pid_t tid, uint64_t start_time, int uffd,
		struct error *e) must_check;
/*
 * Registers the mappings that are not yet. The tasks stand still: a mapping that grows in this
 * instant would be split, and its application could not mremap() it as a whole.
 */
int track_register(struct mm_track *t, int proc_fd, struct error *e) must_check;
/* Finds what has been written since the last look, or at the first all; adds its size. */
int track_look(struct mm_track *t, int proc_fd, uint64_t *ret_bytes, struct error *e) must_check;
/* Copies that, after all tasks have been stopped once since. After a failure of either the track is
 * of no use. */
int track_copy(struct mm_track *t, int proc_fd, struct page_seen *seen, struct page_store *store,
	       struct error *e) must_check;
/* Of a task that has ended. */
void track_drop(struct mm_track *t);
/* Leaves it to the freeze instead. */
int track_leave(struct mm_track *t, struct error *e) must_check;
/* Is a part of this range tracked? Was it ever? t may be NULL. */
bool track_covers(const struct mm_track *t, uint64_t start, uint64_t end);
bool track_covered(const struct mm_track *t, uint64_t start, uint64_t end);
/* The copies that still hold, of pages that were not written. */
int track_kept(const struct mm_track *t, const struct span_vec *unwritten,
	       struct kept_spans *ret) must_check;
struct mm_track *track_find(struct mm_tracks *tracks, pid_t tid, uint64_t start_time);
/* Memory is as before. */
void tracks_end(struct mm_tracks *tracks);

#endif
