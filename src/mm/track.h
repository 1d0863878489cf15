/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_TRACK_H
#define REPRISE_MM_TRACK_H

#include "core/vec.h"
#include "image/chain.h"
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
 *
 * A track may last (src/mm/track_last.c): then the same userfaultfd serves the next checkpoint, for
 * which a page has the contents that it had in this image unless it has been written since. That
 * counts for pages that a look of ours has protected (`sure`): others may bear the mark for other
 * reasons. What has lost its registration may be registered again then, all marks taken away.
 */
struct mm_track {
	pid_t tid;
	uint64_t start_time;	/* of that task */
	uint8_t program[16];	/* what exec changes: see track_program() */
	uint64_t parent;	/* its address space in the parent of the image, 0 none */
	uint64_t object;	/* and in this image */
	int uffd;		/* of its address space */
	bool lasting;		/* since an earlier checkpoint */
	bool tells_holes;	/* see pagemap_tells_holes() */
	uint64_t seen_ns;	/* when smaps was read for `vmas`, CLOCK_MONOTONIC; 0: not yet */
	struct span_vec spans;	/* what is registered; sorted */
	struct span_vec ever;	/* what ever was; sorted */
	struct span_vec sure;	/* protected by a look, and not found written in a freeze */
	struct span_vec todo;	/* found by the last look */
	struct span_vec tried;	/* found since, by track_try(): belongs to the next one */
	struct kept_spans kept; /* copies, and what the parent of the image has */
	struct vma_list vmas;	/* as they were at the last look, flags as of seen_ns */
};

struct mm_tracks {
	VEC(struct mm_track) v;
	struct shared_objects *shared; /* see mm/shared.h; may be NULL */
	bool last;		       /* are to be used again */
	uint8_t of[32]; /* digest of the image that has what is not written; valid if any lasts */
	uint64_t who;	/* precopy_who() of its freeze */
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
/* The mappings as somebody has just seen them serve the next look; *list is used up. fresh: smaps
 * was read. */
void track_seen(struct mm_track *t, struct vma_list *list, bool fresh);
/* Keeps them for a track that is yet to begin, which takes them over. */
int track_survey(struct mm_tracks *surveyed, pid_t tid, uint64_t start_time,
		 struct vma_list *list) must_check;
void track_take_survey(struct mm_track *t, struct mm_tracks *surveyed);
/* Flags of mappings that were seen so lately need not be looked at again (src/mm/known.c). */
bool track_knows(const struct mm_track *t);
/*
 * Instead of a look: a part of what has been written is protected, some 1/TRACK_TRIED of it, so
 * that it can be asked how fast that is written again, at as small a part of what a look costs the
 * task. Adds how much that is. Then either the next look has it (track_tried()), or it is left
 * (track_leave()), as all that was written is.
 */
#define TRACK_TRIED 8
int track_try(struct mm_track *t, int proc_fd, uint64_t *ret_bytes, struct error *e) must_check;
void track_tried(struct mm_track *t);
/* How much of what the last look found has been written again since. */
int track_again(const struct mm_track *t, int proc_fd, uint64_t *ret_bytes,
		struct error *e) must_check;
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
void track_end(struct mm_track *t);

/* ---- from one checkpoint to the next ---- */

/*
 * 16 random bytes that the kernel gives to each program that is executed (AT_RANDOM); all zero if
 * they cannot be read. The address space of a task is another one after exec.
 */
void track_program(int proc_fd, pid_t tid, uint8_t ret[16]);
bool track_is_same_program(const struct mm_track *t, int proc_fd);
/* Before the first look: what the parent has is as good as a copy. */
int track_resume(struct mm_track *t, const struct page_map *parent, struct error *e) must_check;
/* In the freeze, when all has been looked at: registers what is new. fd: of /proc/PID/pagemap. */
int track_register_new(struct mm_track *t, int fd, const Reprise__Mm *mm,
		       struct error *e) must_check;
/* The image has the address space under this id; unwritten: of the freeze. */
int track_carry(struct mm_track *t, uint64_t object, const struct span_vec *unwritten) must_check;
/* In both, sorted. -ENOMEM. */
int spans_common(const struct span_vec *a, const struct span_vec *b,
		 struct span_vec *ret) must_check;
/* Adds spans to others, which are sorted and joined. -ENOMEM. */
int spans_unite(struct span_vec *to, const struct span_vec *more) must_check;
/* Adds to the last one if it goes on there. -ENOMEM. */
int kept_add(struct kept_spans *to, uint64_t start, uint64_t end, uint64_t position) must_check;
/* What lies in none of the spans. -ENOMEM. */
int kept_but(const struct kept_spans *kept, const struct span_vec *but,
	     struct kept_spans *ret) must_check;
/* The spans as bytes in a file without a name, and back again. */
int track_pack(const struct mm_track *t, struct error *e) must_check;
int track_unpack(struct mm_track *t, int fd) must_check;

#endif
