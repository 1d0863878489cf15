/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_EXTERNAL_H
#define REPRISE_FS_EXTERNAL_H

#include "fs/context.h"

/* Open files that are outside by declaration, and what takes the place of open files. */

/* 1 if it was declared external, 0 if not. */
int external_declared(const struct checkpoint *c, const struct file_seen *f,
		      struct error *e) must_check;

/* Before anything is made: has every external something in its place, and every replacement
 * something that it may replace? */
int external_check(const struct restart *r, struct error *e) must_check;
/* What takes the place of a description; NULL: nothing. */
const struct restart_replacement *external_replacement(const struct restart *r, uint64_t id,
						       const Reprise__File *msg);
int external_open(struct restart *r, struct file_open *f, const struct restart_replacement *other,
		  struct error *e) must_check;
/* "pid:1234/fd:5" */
bool external_by_number(const char *object, pid_t *ret_pid, int *ret_fd);
/* An object by its name, or by a pattern. */
bool external_matches(const char *object, const char *name);

#endif
