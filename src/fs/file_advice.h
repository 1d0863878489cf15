/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_FILE_ADVICE_H
#define REPRISE_FS_FILE_ADVICE_H

#include "fs/context.h"

enum file_advice {		      /* numbers stand in images: for ever */
		   ADVICE_AHEAD = 1,  /* twice as much is read ahead: POSIX_FADV_SEQUENTIAL */
		   ADVICE_RANDOM = 2, /* nothing is: POSIX_FADV_RANDOM */
};

/*
 * How a regular file will be read, as the application has said, and whether watches are told of it;
 * nothing where that cannot be known. Refuses a file of which an error has not been told yet.
 */
int file_advice_save(struct checkpoint *c, const struct file_seen *f, Reprise__RegularFile *m,
		     struct error *e) must_check;
void file_advice_restore(int fd, uint32_t advice);

#endif
