/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_AIO_REQUESTS_H
#define REPRISE_FS_AIO_REQUESTS_H

#include "model/checkpoint.h"
#include "model/restart.h"

/* Requests of asynchronous I/O that wait for files: which these are, when all descriptions have
 * been seen; asked for again, when all files are there. */
int aio_requests_resolve(struct checkpoint *c, struct error *e) must_check;
int aio_requests_restart(struct restart *r, struct error *e) must_check;

#endif
