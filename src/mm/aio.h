/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_AIO_H
#define REPRISE_MM_AIO_H

#include "mm/state.h"
#include "model/restart.h"

/* Contexts of asynchronous I/O (io_setup) and their rings. */

#define AIO_POLLS_MAX (1u << 20)

/* A request that waits for a file. */
struct aio_poll {
	uint64_t file;	  /* struct file */
	uint64_t eventfd; /* struct eventfd_ctx, 0 none */
	uint64_t iocb, data;
	uint32_t events;
};

struct aio_polls {
	struct aio_poll *v;
	size_t n, cap;
};

/* Is there any context? */
bool mm_has_aio(const struct checkpoint *c);
int aio_polls_look(struct kernel_memory *k, uint64_t context, struct aio_polls *ret) must_check;
int aio_polls_save(const struct aio_polls *polls, Reprise__AioRing *m,
		   struct scratch *s) must_check;
bool aio_polls_fit(const Reprise__AioRing *m);

/* What the kernel knows about them; of one checkpoint. */
struct aio_checkpoint;
void aio_checkpoint_free(struct aio_checkpoint *x); /* accepts NULL */

/* The context of a ring, in the message of its mapping. */
int aio_checkpoint(struct checkpoint *c, const struct checkpoint_process *p, const struct vma *v,
		   Reprise__Vma *msg, struct scratch *s, struct error *e) must_check;
int aio_validate(const Reprise__Vma *v, struct error *e) must_check;
/* Makes the contexts of a process, when all other mappings are there. */
int aio_restart(struct restart *r, struct restart_process *p, struct error *e) must_check;

#endif
