/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_FS_TTY_DEVICE_H
#define REPRISE_FS_TTY_DEVICE_H

#include "fs/context.h"

/* A console or a serial line? */
bool tty_is_device(uint64_t rdev);
/* What it takes to open it anew, and why that cannot be (NULL: it can). */
int tty_device_look(const struct file_seen *f, Reprise__TtyFile *m, struct scratch *s,
		    const char **ret_obstacle, struct error *e) must_check;
int tty_device_validate(const Reprise__TtyFile *m, struct error *e) must_check;
int tty_device_restart(struct restart *r, const Reprise__TtyFile *m, int flags, int *ret_fd,
		       struct error *e) must_check;

#endif
