/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_DNOTIFY_H
#define REPRISE_FS_DNOTIFY_H

#include "fs/context.h"

/* Of a directory with an owner for signals: who watches it with F_NOTIFY. */
int dnotify_checkpoint(struct checkpoint *c, const struct file_seen *f, Reprise__File *msg,
		       struct scratch *scratch, struct error *e) must_check;
/* When all tables are known. */
int dnotify_checkpoint_all(struct checkpoint *c, struct error *e) must_check;
int dnotify_validate(const struct restart *r, const Reprise__File *msg, struct error *e) must_check;
int dnotify_restart_table(struct restart *r, struct restart_task *t, const Reprise__Files *table,
			  struct error *e) must_check;

#endif
