/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_URING_PROVIDED_H
#define REPRISE_FS_URING_PROVIDED_H

#include "fs/uring.h"

#define URING_REGISTER_PBUF_STATUS 26 /* 6.8 */

/* While the rings are brought to where they were. */
struct uring_counting {
	struct restart_task *task;
	int fd, remote;
	struct uring_shared x;
	uint64_t rings_there; /* address in the task */
};

/* Submits n of the requests that stand in all places of the ring, and takes their completions. */
int uring_count_further(struct uring_counting *c, uint32_t n, struct error *e) must_check;

/* The same where a thread of the kernel submits. */
int uring_poll_count(struct uring_counting *c, uint32_t n, struct error *e) must_check;

/* Adds those of a ring, or says what is in the way (s->obstacle). */
int uring_provided_look(struct kernel_memory *k, uint64_t ctx, struct uring_seen *s) must_check;
/* Where they are in the memory of the owner. */
int uring_provided_save(struct checkpoint *c, struct kernel_memory *k, int fd,
			const struct uring_seen *seen, Reprise__IoUring *m, struct scratch *s,
			struct error *e) must_check;
bool uring_provided_fits(const Reprise__IoUring *m);
/* Registers them and takes as many buffers as had been, one by each request: they count. */
int uring_provided_restart(struct restart *r, struct uring_counting *c, struct error *e) must_check;

/* Buffers given by requests: those of a list (struct io_buffer_list). */
int uring_given_look(struct kernel_memory *k, uint64_t list, struct uring_seen *s) must_check;
int uring_given_save(const struct uring_seen *seen, Reprise__IoUring *m, struct scratch *s,
		     struct error *e) must_check;
bool uring_given_fits(const Reprise__IoUring *m);
int uring_given_restart(struct uring_counting *c, struct error *e) must_check;

#endif
