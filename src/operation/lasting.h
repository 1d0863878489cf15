/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_LASTING_H
#define REPRISE_OPERATION_LASTING_H

#include "mm/track.h"
#include "operation/pass.h"

/*
 * Tracks that last from one checkpoint to the next (mm/track.h). A worker that makes a checkpoint
 * ends with it; so they, and a descriptor of each userfaultfd, are handed to its caller, from whom
 * the next worker is forked. Registration ends when both have closed theirs.
 */
struct lasting_track {
	pid_t tid;
	uint64_t start_time, object;
	uint8_t program[16];
	uint8_t of[32]; /* digest of the image */
	uint64_t who, seen_ns;
};

/* In the worker: before anything is looked at. */
int lasting_resume(struct subject *s, struct report *rep, struct error *e) must_check;
/* Here and at the caller's: memory is as before. */
void lasting_give_up(struct mm_tracks *tracks, struct report *rep);
/* The image is written, and has this digest. */
void lasting_hand_on(struct mm_tracks *tracks, const uint8_t digest[32], struct report *rep);

/* In the caller: takes one over, with its descriptors; and forgets, see report_forget(). */
void lasting_take(struct mm_tracks *tracks, const struct lasting_track *track, int fds[2]);
void lasting_forget(struct mm_tracks *tracks, pid_t tid);

/* reprise_checkpoint_file() with tracks, which are replaced by those for the next one. */
int checkpoint_file_tracked(pid_t pid, const char *path,
			    const struct reprise_checkpoint_options *options,
			    struct mm_tracks *tracks, struct reprise_error *error) must_check;

#endif
