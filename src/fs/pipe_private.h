/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_PIPE_PRIVATE_H
#define REPRISE_FS_PIPE_PRIVATE_H

#include "fs/context.h"

/*
 * Copies what is in a pipe into msg, which knows its capacity, without consuming it. packets: fd
 * has O_DIRECT.
 */
int pipe_contents_save(int proc_fd, int fd, bool packets, Reprise__Pipe *msg, struct scratch *s,
		       struct error *e) must_check;
void close_pair(int (*fds)[2]);
/* Makes both ends, non-blocking. */
int pipe_make(struct pipe_open *p, struct error *e) must_check;
int fifo_make(struct restart *r, struct pipe_open *p, const Reprise__File *msg,
	      struct error *e) must_check;
int pipe_contents_fill(struct pipe_open *p, struct error *e) must_check;

#endif
