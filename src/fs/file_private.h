/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_FILE_PRIVATE_H
#define REPRISE_FS_FILE_PRIVATE_H

#include "fs/context.h"

/* Between file.c, file_restart.c, files.c and the kinds that open one description before another.
 */

/*
 * Saves a description at its first sight: f->local, st, link, fdinfo, fd, tid and
 * process are given (no process: in a queue, fd and tid are ours). Sets f->id and f->entry.
 */
int file_save(struct checkpoint *c, struct file_seen *f, struct error *e) must_check;

/* The text of a file of /proc/PID/fdinfo, to be freed; NULL. */
char *file_read_info(int dir, const char *name);
char *file_read_link(int dir, const char *name);
/* Cheap to learn and equal for equal descriptions, so that few need to be compared. */
uint64_t file_hash(const struct stat *st, const char *fdinfo);
/* Why a description that no kind claims cannot be saved. Always an error. */
int file_refuse_kind(const struct file_seen *f, struct error *e);

/* Refuses a device, with its name if it has one. */
int device_refuse(const struct file_seen *f, struct error *e) must_check;

/* The open description of an id; NULL. */
struct file_open *file_open_find(const struct restart *r, uint64_t id);
/* Opens it before its turn comes. */
/* The same as ops->checkpoint(), in the network namespace of the socket. */
int file_checkpoint_kind(struct checkpoint *c, struct file_seen *f, struct scratch *s,
			 struct error *e) must_check;
void file_networks_end(struct checkpoint *c);
int file_open_now(struct restart *r, struct file_open *f, struct error *e) must_check;

#endif
