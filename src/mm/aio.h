/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MM_AIO_H
#define REPRISE_MM_AIO_H

#include "mm/state.h"
#include "model/restart.h"

/* Contexts of asynchronous I/O (io_setup) and their rings. */

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
