/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_PIPE_ASKER_H
#define REPRISE_FS_PIPE_ASKER_H

#include "core/error.h"
#include "core/scratch.h"
#include "fs.pb-c.h"

/*
 * What a pipe holds is told under its lock (__pipe_lock()), for which whoever asks waits, and no
 * signal ends that. A process outside of the tree may have it for as long as it likes: splice(2)
 * from a slow file, a read into memory that nobody provides. So a process of its own asks, while
 * the tasks stand still, and is left alone if it does not answer.
 */
struct pipe_asker;

struct pipe_question {
	bool contents; /* capacity and contents are wanted */
	bool packets;  /* of a description with O_DIRECT */
	bool fresh;    /* is this fifo at its end? see is_fresh() */
};

int pipe_asker_begin(struct pipe_asker **ret, int proc_fd, struct error *e) must_check;
void pipe_asker_end(struct pipe_asker *a); /* accepts NULL */

/* Does not wait. -EAGAIN, without a text: no more before an answer has been taken. */
int pipe_asker_ask(struct pipe_asker *a, int fd, struct pipe_question q,
		   struct error *e) must_check;
/*
 * The answer to the question that was asked first. If that was for contents they are put into msg,
 * as memory of `s`. The error may be that of the question.
 */
int pipe_asker_answer(struct pipe_asker *a, int timeout_ms, bool *ret_fresh, Reprise__Pipe *msg,
		      struct scratch *s, struct error *e) must_check;

#endif
