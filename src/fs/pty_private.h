/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_PTY_PRIVATE_H
#define REPRISE_FS_PTY_PRIVATE_H

#include "fs/context.h"
#include "fs/pty_queue.h"

/* Between the parts of pty.c. */

/* ---- what is under way: pty_contents.c ---- */

/* Remembers a master until all descriptions are known. */
int pty_master_keep(struct checkpoint *c, struct file_entry *entry, int fd,
		    struct error *e) must_check;
/* And a slave in exclusive mode: through it others can be opened. */
int pty_exclusive_keep(struct checkpoint *c, struct file_entry *entry, int fd,
		       struct error *e) must_check;
/* Fills in the messages of all masters with what is in them. Everybody is stopped. */
int pty_contents_save(struct checkpoint *c, struct error *e) must_check;
void pty_masters_free(struct checkpoint *c);
int pty_contents_validate(const Reprise__PtyFile *m, struct error *e) must_check;
/* Into a new pseudo-terminal that nobody uses yet. */
int pty_contents_put(int master, int slave, const Reprise__PtyFile *m, struct error *e) must_check;

/* ---- the session whose terminal it is: pty_session.c ---- */

/* The foreground group of its session, once, when all tasks are there. */
int pty_session_restart(struct restart *r, struct file_open *master, struct error *e) must_check;
/* Opens it as /dev/tty in its session. Returns -ENOTTY if there is no such session. */
int pty_open_alias(struct restart *r, struct file_open *master, int flags, int *ret_fd,
		   struct error *e) must_check;

/* A terminal on which another protocol than the usual one runs cannot be saved. */
int pty_refuse_discipline(int fd, struct error *e) must_check;

/* A slave whose master has gone: of this number if that is free. */
int pty_open_dead(struct restart *r, unsigned int index, int flags, int *ret_fd,
		  struct error *e) must_check;

#endif
